//! Taking connections from a listener for as long as the process lives.

use std::io;
use std::time::Duration;

/// How long after a failure the next connection is waited for.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The next connection. A failure passes (too many open files, a client that is gone), and must not spin.
pub(crate) async fn accepted<T>(accept: impl AsyncFn() -> io::Result<T>) -> T {
    loop {
        match accept().await {
            Ok(connection) => return connection,
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}
