//! bench
use super::client::Result;
/// x
pub async fn bench(_args: &[String]) -> Result<()> {
    Ok(())
}
