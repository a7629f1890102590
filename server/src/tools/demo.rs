//! demo
use super::client::Result;
/// x
pub async fn demo(_args: &[String]) -> Result<()> {
    Ok(())
}
