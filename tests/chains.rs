//! Runs a test on every kind of chain.

use crate::skipped::skipped;
use regtest::Chain;

/// The embedded chain.
pub async fn embedded() -> Option<Chain> {
    Some(Chain::embedded())
}

/// A fresh Bitcoin Core, if `BITCOIND_EXE` names one. A program that does not start is a failure.
pub async fn bitcoind() -> Option<Chain> {
    match std::env::var_os("BITCOIND_EXE") {
        Some(exe) => Some(Chain::bitcoind_temporary(exe.as_ref()).await.unwrap()),
        None => {
            skipped("set BITCOIND_EXE to run it");
            None
        }
    }
}

/// `on_every_chain! { one_test another_test }`: each takes the chain it plays on.
#[macro_export]
macro_rules! on_every_chain {
    ($($test: ident)*) => {
        $crate::on_every_chain!(@chain embedded: $($test)*);
        $crate::on_every_chain!(@chain bitcoind: $($test)*);
    };
    (@chain $chain: ident: $($test: ident)*) => {
        mod $chain {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(chain) = $crate::chains::$chain().await {
                        super::$test(chain).await;
                    }
                }
            )*
        }
    };
}
