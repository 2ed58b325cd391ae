//! A Bitcoin Core daemon that lives as long as the chain which started it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{Endpoint, RpcAuth, loopback};

/// How long a daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at a daemon which is starting.
const START_POLL: Duration = Duration::from_millis(20);
/// Another program can take the port before the daemon does, so a start is tried again.
const START_ATTEMPTS: u32 = 3;
/// How much of a log goes into an error, in bytes.
const LOG_TAIL: usize = 2000;

/// A running daemon and its temporary folder. Both go when this is dropped.
pub(super) struct BitcoindProcess {
    pub endpoint: Endpoint,
    /// Declared before the folder, so that the daemon is gone when the folder is removed.
    _child: KilledOnDrop,
    _folder: TempDir,
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl BitcoindProcess {
    /// Starts `exe` on a fresh regtest chain and waits until it answers.
    pub async fn start(exe: &Path) -> Result<BitcoindProcess> {
        let mut last = anyhow!("no attempt");
        for _ in 0..START_ATTEMPTS {
            match Self::start_once(exe).await {
                Ok(process) => return Ok(process),
                Err(StartError::Fatal(error)) => return Err(error),
                Err(StartError::Ended(error)) => last = error,
            }
        }
        Err(last)
    }

    async fn start_once(exe: &Path) -> Result<BitcoindProcess, StartError> {
        let folder = TempDir::with_prefix("regtest-bitcoind-")
            .context("cannot make a temporary folder for bitcoind")?;
        let port = free_port().context("cannot find a free port for bitcoind")?;
        let errors = folder.path().join("stderr.log");
        let child = Command::new(exe)
            .args(["-regtest", "-server", "-listen=0", "-txindex=1", "-blockfilterindex=0"])
            .args(["-fallbackfee=0.00001", "-debug=0", "-printtoconsole=0"])
            .args(["-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1"])
            .arg(format!("-rpcport={port}"))
            .arg(format!("-datadir={}", folder.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors).context("cannot make a log file for bitcoind")?)
            .spawn()
            .with_context(|| format!("cannot start {}", exe.display()))?;
        let mut child = KilledOnDrop(child);

        let cookie = RpcAuth::Cookie(folder.path().join("regtest/.cookie"));
        let logs = [errors, folder.path().join("regtest/debug.log")];
        let deadline = Instant::now() + START_LIMIT;
        loop {
            // Until the cookie is there, and while the daemon still loads, this fails.
            if let Ok(endpoint) = Endpoint::new(loopback(port).to_string(), cookie.clone()) {
                let answer = endpoint.call("getblockchaininfo", &[]);
                if let Ok(Ok(_)) = tokio::time::timeout_at(deadline, answer).await {
                    return Ok(BitcoindProcess { endpoint, _child: child, _folder: folder });
                }
            }
            if let Some(status) = child.0.try_wait().context("cannot watch bitcoind")? {
                let error = anyhow!("{} ended: {status}\n{}", exe.display(), tails(&logs));
                return Err(StartError::Ended(error));
            }
            if Instant::now() > deadline {
                return Err(StartError::Fatal(anyhow!(
                    "{} does not answer after {} s\n{}",
                    exe.display(),
                    START_LIMIT.as_secs(),
                    tails(&logs)
                )));
            }
            tokio::time::sleep(START_POLL).await;
        }
    }
}

enum StartError {
    /// The daemon ended early: another attempt, on another port, may work.
    Ended(anyhow::Error),
    Fatal(anyhow::Error),
}

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        StartError::Fatal(error)
    }
}

/// A port on which nothing listens at this moment.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?.port())
}

/// The ends of those log files which exist.
fn tails(logs: &[impl AsRef<Path>]) -> String {
    let mut text = String::new();
    for log in logs {
        let bytes = fs::read(log).unwrap_or_default();
        let tail = &bytes[bytes.len().saturating_sub(LOG_TAIL)..];
        text.push_str(&String::from_utf8_lossy(tail));
    }
    text
}
