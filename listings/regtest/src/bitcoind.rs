//! Bitcoin Core over JSON-RPC.
//!
//! The same calls also reach an embedded chain which another process [serves](crate::serve).

mod process;
mod tip;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bitcoin::base64::Engine as _;
use bitcoin::base64::engine::general_purpose::STANDARD as BASE64;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Address, Block, BlockHash, Network, OutPoint, Script, Transaction, Txid};
use lightning_block_sync::gossip::UtxoSource;
use lightning_block_sync::rpc::{RpcClient, RpcClientError};
use lightning_block_sync::{BlockData, BlockHeaderData, BlockSource, BlockSourceResult};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::BroadcastError;
use process::BitcoindProcess;
use tip::TipWatch;

/// `bitcoind`: no such transaction or address.
const NOT_FOUND: i64 = -5;
/// `bitcoind`: a transaction is refused, for its inputs or for a rule.
const TX_ERROR: i64 = -25;
const TX_REJECTED: i64 = -26;
const TX_ALREADY_IN_UTXO_SET: i64 = -27;
/// The transaction cannot be decoded.
const DECODE_ERROR: i64 = -22;

/// `bitcoind` itself returns the transactions of at most this many dropped blocks to its mempool.
const MAX_RETURNED_BLOCKS: u32 = 10;

/// How to log in at an RPC server.
#[derive(Clone)]
pub enum RpcAuth {
    /// User name and password.
    UserPass(String, String),
    /// The cookie file that `bitcoind` writes into its data folder when no password is set.
    Cookie(PathBuf),
}

impl RpcAuth {
    /// The base64 text of HTTP basic authentication (RFC 7617).
    fn credentials(&self) -> Result<String> {
        let plain = match self {
            RpcAuth::UserPass(user, password) => format!("{user}:{password}"),
            RpcAuth::Cookie(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the cookie file {}", path.display()))?
                .trim()
                .to_owned(),
        };
        Ok(BASE64.encode(plain))
    }
}

impl fmt::Debug for RpcAuth {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RpcAuth::UserPass(user, _) => f.debug_tuple("UserPass").field(user).finish(),
            RpcAuth::Cookie(path) => f.debug_tuple("Cookie").field(path).finish(),
        }
    }
}

/// A regtest chain behind a JSON-RPC server. Clones share the server.
#[derive(Clone)]
pub struct RpcChain {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    tip: TipWatch,
    /// The daemon, if this chain started it: it ends with the last clone.
    _process: Option<BitcoindProcess>,
}

/// Where the server is, and how to log in.
#[derive(Clone)]
struct Endpoint {
    addr: String,
    auth: RpcAuth,
    /// `auth`, as the header of a request wants it.
    credentials: String,
    /// Requests under way: `bitcoind` refuses what its work queue cannot hold.
    turns: Arc<Semaphore>,
}

/// Bitcoin Core answers 16 requests at a time and queues 64 more by default; others may ask too.
const REQUESTS_AT_ONCE: usize = 16;

impl Endpoint {
    fn new(addr: String, auth: RpcAuth) -> Result<Endpoint> {
        let credentials = auth.credentials()?;
        let turns = Arc::new(Semaphore::new(REQUESTS_AT_ONCE));
        Ok(Endpoint { addr, auth, credentials, turns })
    }

    /// A client for one call.
    ///
    /// A shared client would send its requests one after the other through a single connection,
    /// and send those again which the server has not answered when it closes that connection.
    /// That is fine for reading, but `generatetoaddress` must not run twice.
    fn client(&self) -> RpcClient {
        RpcClient::new(&self.credentials, format!("http://{}", self.addr))
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("nobody closes it")
    }

    async fn call(&self, method: &str, params: &[Value]) -> Result<Value, RpcClientError> {
        let _turn = self.turn().await;
        self.client().call_method(method, params).await
    }
}

impl RpcChain {
    /// See [`Chain::rpc`](crate::Chain::rpc).
    ///
    /// # Errors
    ///
    /// If nothing answers, if the credentials are refused, and for any chain other than regtest.
    pub async fn connect(addr: &str, auth: RpcAuth) -> Result<RpcChain> {
        Self::with_endpoint(Endpoint::new(addr.to_owned(), auth)?, None).await
    }

    /// See [`Chain::bitcoind_temporary`](crate::Chain::bitcoind_temporary).
    ///
    /// # Errors
    ///
    /// If the program does not start or does not answer within 60 seconds.
    pub async fn start_temporary(exe: &Path) -> Result<RpcChain> {
        let process = BitcoindProcess::start(exe).await?;
        let endpoint = process.endpoint.clone();
        Self::with_endpoint(endpoint, Some(process)).await
    }

    async fn with_endpoint(
        endpoint: Endpoint,
        process: Option<BitcoindProcess>,
    ) -> Result<RpcChain> {
        let info = endpoint.call("getblockchaininfo", &[]).await.with_context(|| {
            format!("no usable answer from the Bitcoin RPC server at {}", endpoint.addr)
        })?;
        let name = info["chain"].as_str().unwrap_or("unknown");
        ensure!(
            name == "regtest",
            "the Bitcoin RPC server at {} is on the chain \"{name}\"; this program works only on \
             \"regtest\"",
            endpoint.addr
        );
        let tip = TipWatch::new(endpoint.clone());
        Ok(RpcChain { shared: Arc::new(Shared { endpoint, tip, _process: process }) })
    }

    /// Where the server is, as `host:port`: for other processes, which take it with
    /// [`Chain::rpc`](crate::Chain::rpc).
    pub fn addr(&self) -> &str {
        &self.shared.endpoint.addr
    }

    /// How to log in there.
    pub fn auth(&self) -> &RpcAuth {
        &self.shared.endpoint.auth
    }

    /// Calls a method of the server, for what this type does not offer.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or answers with an error.
    pub async fn call(&self, method: &str, params: &[Value]) -> Result<Value> {
        self.shared
            .endpoint
            .call(method, params)
            .await
            .with_context(|| format!("{method} at {}", self.shared.endpoint.addr))
    }

    /// See [`Chain::broadcast`](crate::Chain::broadcast).
    ///
    /// If the first transaction pays too small a fee and others follow, all are sent as one
    /// package, in which a child pays for its parents.
    ///
    /// # Errors
    ///
    /// The first refused transaction, with the reason.
    pub async fn broadcast(&self, txs: &[Transaction]) -> Result<(), BroadcastError> {
        for (index, tx) in txs.iter().enumerate() {
            let Err(error) = self.send(tx).await else {
                continue;
            };
            let last = index + 1 == txs.len();
            if !last && is_about_fee(error.reason()) {
                return self.send_package(&txs[index..], error).await;
            }
            return Err(error);
        }
        Ok(())
    }

    /// See [`Chain::would_take`](crate::Chain::would_take).
    ///
    /// # Errors
    ///
    /// If it would be refused, with the reason, or if the server cannot be reached.
    pub async fn would_take(&self, tx: &Transaction) -> Result<(), BroadcastError> {
        let txid = tx.compute_txid();
        let params = [json!([serialize_hex(tx)]), json!(0)];
        let answer = self.shared.endpoint.call("testmempoolaccept", &params).await;
        let answer = answer
            .map_err(|error| BroadcastError::Unavailable { txid, reason: error.to_string() })?;
        let verdict = &answer[0];
        let reason = verdict["reject-reason"].as_str().unwrap_or("no reason given");
        let known = ["txn-already-in-mempool", "txn-already-known"].contains(&reason);
        if verdict["allowed"] == true || known {
            return Ok(());
        }
        // A confirmed transaction whose outputs are all spent looks like a double spend.
        if matches!(self.transaction(txid).await, Ok(Some(_))) {
            return Ok(());
        }
        Err(BroadcastError::Rejected { txid, reason: reason.to_owned() })
    }

    async fn send(&self, tx: &Transaction) -> Result<(), BroadcastError> {
        let txid = tx.compute_txid();
        // 0 lifts the limit that protects wallets from typing errors in the fee
        let params = [json!(serialize_hex(tx)), json!(0)];
        let Err(error) = self.shared.endpoint.call("sendrawtransaction", &params).await else {
            return Ok(());
        };
        let RpcClientError::Rpc(refusal) = &error else {
            return Err(BroadcastError::Unavailable { txid, reason: error.to_string() });
        };
        match refusal.code {
            TX_ALREADY_IN_UTXO_SET => Ok(()),
            TX_ERROR | TX_REJECTED | DECODE_ERROR => {
                // A confirmed transaction whose outputs are all spent looks like a double spend.
                if matches!(self.transaction(txid).await, Ok(Some(_))) {
                    return Ok(());
                }
                Err(BroadcastError::Rejected { txid, reason: refusal.message.clone() })
            }
            _ => Err(BroadcastError::Unavailable { txid, reason: error.to_string() }),
        }
    }

    /// Sends a child with its parents; `first` is the error if the server knows no packages.
    async fn send_package(
        &self,
        txs: &[Transaction],
        first: BroadcastError,
    ) -> Result<(), BroadcastError> {
        let package: Vec<String> = txs.iter().map(serialize_hex).collect();
        let params = [json!(package), json!(0)];
        let answer = match self.shared.endpoint.call("submitpackage", &params).await {
            Ok(answer) => answer,
            Err(RpcClientError::Rpc(error)) => {
                let reason = format!("{}; as a package: {}", first.reason(), error.message);
                return Err(BroadcastError::Rejected { txid: first.txid(), reason });
            }
            Err(error @ (RpcClientError::Http(_) | RpcClientError::InvalidData(_))) => {
                let reason = error.to_string();
                return Err(BroadcastError::Unavailable { txid: first.txid(), reason });
            }
        };
        if answer["package_msg"] == "success" {
            return Ok(());
        }
        for tx in txs {
            let result = &answer["tx-results"][tx.compute_wtxid().to_string()];
            if let Some(error) = result["error"].as_str() {
                let reason = format!("{error} (in a package: {})", answer["package_msg"]);
                return Err(BroadcastError::Rejected { txid: tx.compute_txid(), reason });
            }
        }
        let reason = format!("{}; as a package: {}", first.reason(), answer["package_msg"]);
        Err(BroadcastError::Rejected { txid: first.txid(), reason })
    }

    /// See [`Chain::mine`](crate::Chain::mine).
    ///
    /// # Errors
    ///
    /// If the server cannot be reached or does not mine.
    pub async fn mine(&self, blocks: u32, pay_to: &Script) -> Result<Vec<BlockHash>> {
        if blocks == 0 {
            return Ok(Vec::new());
        }
        match self.generate(blocks, pay_to).await {
            Err(error) if format!("{error:#}").contains("block not accepted") => {
                let mut hashes = self.generate_later(pay_to).await.context(error)?;
                if blocks > 1 {
                    hashes.extend(self.generate(blocks - 1, pay_to).await?);
                }
                Ok(hashes)
            }
            result => result,
        }
    }

    async fn generate(&self, blocks: u32, pay_to: &Script) -> Result<Vec<BlockHash>> {
        let answer = match Address::from_script(pay_to, Network::Regtest) {
            Ok(address) => {
                self.call("generatetoaddress", &[json!(blocks), json!(address.to_string())]).await?
            }
            Err(_) => {
                let descriptor = format!("raw({})", pay_to.to_hex_string());
                self.call("generatetodescriptor", &[json!(blocks), json!(descriptor)]).await?
            }
        };
        let hashes = answer.as_array().context("the server answered without block hashes")?;
        hashes.iter().map(parse_hash).collect()
    }

    /// Mines one block after a reorganisation.
    ///
    /// Within the second in which a block was dropped, `bitcoind` makes the very same block again
    /// and refuses it, because it was declared invalid. A clock that is set forward helps.
    async fn generate_later(&self, pay_to: &Script) -> Result<Vec<BlockHash>> {
        let info = self.call("getblockchaininfo", &[]).await?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let start = now.max(info["mediantime"].as_u64().unwrap_or(0) + 1);
        let mut result = Err(anyhow!("no attempt"));
        // Each reorganisation at this height can have used up one second.
        for offset in 1..=60 {
            self.call("setmocktime", &[json!(start + offset)]).await?;
            result = self.generate(1, pay_to).await;
            if result.is_ok() {
                break;
            }
        }
        self.call("setmocktime", &[json!(0)]).await?;
        result
    }

    /// The transactions that wait for a block.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached.
    pub async fn mempool(&self) -> Result<Vec<Txid>> {
        let answer = self.call("getrawmempool", &[]).await?;
        let txids = answer.as_array().context("getrawmempool: no list of transactions")?;
        txids
            .iter()
            .map(|txid| Ok(txid.as_str().context("getrawmempool: not a text")?.parse()?))
            .collect()
    }

    /// See [`Chain::transaction`](crate::Chain::transaction).
    ///
    /// # Errors
    ///
    /// If the server cannot be reached.
    pub async fn transaction(&self, txid: Txid) -> Result<Option<Transaction>> {
        let params = [json!(txid.to_string()), json!(1)];
        let answer = match self.shared.endpoint.call("getrawtransaction", &params).await {
            Ok(answer) => answer,
            Err(RpcClientError::Rpc(error)) if error.code == NOT_FOUND => return Ok(None),
            Err(error) => return Err(anyhow!(error).context("getrawtransaction")),
        };
        // The index of `bitcoind` keeps the transactions of dropped blocks; they are recognised
        // by 0 confirmations of a block. In the mempool there is no block.
        if answer["blockhash"].is_string() && answer["confirmations"].as_u64().unwrap_or(0) == 0 {
            return Ok(None);
        }
        let hex = answer["hex"].as_str().context("getrawtransaction: no transaction")?;
        Ok(Some(deserialize_hex(hex).context("getrawtransaction: bad transaction")?))
    }

    /// The height of the tip in blocks. The genesis block has height 0.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached.
    pub async fn height(&self) -> Result<u32> {
        let answer = self.call("getblockcount", &[]).await?;
        let height = answer.as_u64().and_then(|height| u32::try_from(height).ok());
        height.context("getblockcount: not a height")
    }

    /// The hash of the last block of the best chain.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached.
    pub async fn tip(&self) -> Result<BlockHash> {
        parse_hash(&self.call("getbestblockhash", &[]).await?)
    }

    /// See [`Chain::wait_for_new_tip`](crate::Chain::wait_for_new_tip).
    pub async fn wait_for_new_tip(&self, known: BlockHash) {
        self.shared.tip.wait_for_new(known).await;
    }

    /// See [`Chain::invalidate_tip`](crate::Chain::invalidate_tip).
    ///
    /// # Errors
    ///
    /// If the chain has fewer than `depth` blocks above the genesis block, or if the server
    /// cannot be reached.
    pub async fn invalidate_tip(&self, depth: u32) -> Result<()> {
        let height = self.height().await?;
        if depth > height {
            bail!("cannot drop {depth} blocks from a chain of height {height}");
        }
        if depth == 0 {
            return Ok(());
        }
        let mut lost = Vec::new();
        for height in height + 1 - depth..=height.saturating_sub(MAX_RETURNED_BLOCKS) {
            lost.extend(self.block_at(height).await?.txdata.into_iter().skip(1));
        }
        let first = self.call("getblockhash", &[json!(height + 1 - depth)]).await?;
        self.call("invalidateblock", &[first]).await?;
        for tx in lost {
            // Some are not valid any more, such as a spend of a dropped coinbase.
            let _ = self.send(&tx).await;
        }
        Ok(())
    }

    async fn block_at(&self, height: u32) -> Result<Block> {
        let hash = self.call("getblockhash", &[json!(height)]).await?;
        let answer = self.call("getblock", &[hash, json!(0)]).await?;
        Ok(deserialize_hex(answer.as_str().context("getblock: not a text")?)?)
    }
}

impl fmt::Debug for RpcChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcChain").field("addr", &self.shared.endpoint.addr).finish()
    }
}

impl BlockSource for RpcChain {
    async fn get_header<'a>(
        &'a self,
        header_hash: &'a BlockHash,
        height_hint: Option<u32>,
    ) -> BlockSourceResult<BlockHeaderData> {
        let _turn = self.shared.endpoint.turn().await;
        self.shared.endpoint.client().get_header(header_hash, height_hint).await
    }

    async fn get_block<'a>(&'a self, header_hash: &'a BlockHash) -> BlockSourceResult<BlockData> {
        let _turn = self.shared.endpoint.turn().await;
        self.shared.endpoint.client().get_block(header_hash).await
    }

    async fn get_best_block(&self) -> BlockSourceResult<(BlockHash, Option<u32>)> {
        let _turn = self.shared.endpoint.turn().await;
        self.shared.endpoint.client().get_best_block().await
    }
}

impl UtxoSource for RpcChain {
    async fn get_block_hash_by_height(&self, height: u32) -> BlockSourceResult<BlockHash> {
        let _turn = self.shared.endpoint.turn().await;
        self.shared.endpoint.client().get_block_hash_by_height(height).await
    }

    async fn is_output_unspent(&self, outpoint: OutPoint) -> BlockSourceResult<bool> {
        let _turn = self.shared.endpoint.turn().await;
        self.shared.endpoint.client().is_output_unspent(outpoint).await
    }
}

/// Whether `bitcoind` refused a transaction for its fee alone.
fn is_about_fee(reason: &str) -> bool {
    ["min relay fee not met", "mempool min fee not met", "insufficient fee"]
        .iter()
        .any(|text| reason.contains(text))
}

fn parse_hash(value: &Value) -> Result<BlockHash> {
    let text = value.as_str().context("the server answered without a block hash")?;
    text.parse().with_context(|| format!("not a block hash: {text}"))
}

/// The address of a server on this machine.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
