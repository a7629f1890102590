//! What every test from outside needs: a server of its own in a child process, and clients.

pub mod ledger;
pub mod slt;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio_postgres::{Client, NoTls};

/// A server in a process of its own; killed when dropped.
pub struct Server {
    child: Child,
    /// The URL it printed.
    pub url: String,
}

/// The built program, beside the tests.
pub fn program() -> PathBuf {
    let mut path = std::env::current_exe().expect("a test knows where it runs");
    path.pop();
    path.pop();
    path.push("millpond");
    assert!(path.is_file(), "{} is not built; ./dev test builds it first", path.display());
    path
}

impl Server {
    /// Starts one over `data`, with more flags, and waits until it is ready.
    pub fn start_with(data: &Path, flags: &[&str]) -> Result<Self, String> {
        let mut child = Command::new(program())
            .arg("serve")
            .args(["--data-dir".as_ref(), data.as_os_str()])
            .args(["--listen", "127.0.0.1:0", "--http-listen", "off"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped"))
            .read_line(&mut line)
            .map_err(|e| e.to_string())?;
        match line.trim().strip_prefix("ready: ") {
            Some(url) => Ok(Self { url: url.to_owned(), child }),
            None => {
                let output = child.wait_with_output().map_err(|e| e.to_string())?;
                Err(String::from_utf8_lossy(&output.stderr).into_owned())
            }
        }
    }

    /// Starts one over `data`.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[]).expect("the server starts")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM; returns its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let status = Command::new("kill").arg(self.pid().to_string()).status().expect("kill runs");
        assert!(status.success());
        self.child.wait().expect("it ends").code()
    }

    /// A client.
    pub async fn connect(&self) -> Client {
        connect(&self.url).await.expect("the server accepts clients")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of a server.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        // The test sees the error on its side.
        let _ = connection.await;
    });
    Ok(client)
}

/// The rows of a statement as text, NULL as `NULL`, sorted.
pub async fn rows(client: &Client, query: &str) -> Vec<String> {
    let mut rows: Vec<String> = client
        .simple_query(query)
        .await
        .unwrap_or_else(|e| panic!("{query}: {e:?}"))
        .into_iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(
                (0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_owned()).collect::<Vec<_>>().join("|"),
            ),
            _ => None,
        })
        .collect();
    rows.sort();
    rows
}

/// The seed of a randomised test, always printed: `SEED` in the environment, which is a number or the word
/// `random`; without it the same one each time, so that a change is judged by what it changes (0028).
pub fn seed(test: &str) -> u64 {
    const SAME: u64 = 20_261_128;
    let seed = match std::env::var("SEED").as_deref() {
        Err(_) => SAME,
        Ok("random") => rand::random(),
        Ok(number) => number.parse().expect("SEED is a number or the word random"),
    };
    println!("{test}: SEED={seed}");
    seed
}

/// How often a test repeats: a variable in the environment, or the default.
pub fn times(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}
