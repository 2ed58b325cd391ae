//! Offers an embedded chain to other processes, as a small part of the JSON-RPC interface of
//! Bitcoin Core.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bitcoin::base64::Engine as _;
use bitcoin::base64::engine::general_purpose::STANDARD as BASE64;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, BlockHash, Network, OutPoint, ScriptBuf, Transaction};
use lightning_block_sync::BlockHeaderData;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::EmbeddedChain;

/// Large enough for a transaction as large as a block, in hex.
const MAX_REQUEST: usize = 9_000_000;

/// Serves `chain` at `listen` (port 0: any free port) until the returned future is dropped.
///
/// The caller decides where the future runs, mostly with `tokio::spawn`. The returned address has
/// the port that was taken; requests are accepted from then on, and answered once the future runs.
///
/// # Errors
///
/// If `listen` is not an address of this machine alone (loopback): the interface lets everyone who
/// knows the password rewrite the chain, and sends that password unencrypted. Also for a user name
/// with a colon, and if the port is taken.
pub async fn serve(
    chain: EmbeddedChain,
    listen: SocketAddr,
    user: String,
    password: String,
) -> Result<(SocketAddr, impl Future<Output = io::Result<()>> + Send + 'static)> {
    ensure!(
        listen.ip().is_loopback(),
        "refusing to serve the chain at {listen}: only loopback addresses such as 127.0.0.1 are \
         allowed"
    );
    ensure!(!user.contains(':'), "an RPC user name cannot contain a colon");
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen at {listen}"))?;
    let addr = listener.local_addr()?;
    let server = Server { chain, authorization: basic(&user, &password) };
    let router = Router::new()
        .route("/", post(handle))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(Arc::new(server));
    Ok((addr, async move { axum::serve(listener, router).await }))
}

struct Server {
    chain: EmbeddedChain,
    /// What the header of each request must say.
    authorization: String,
}

/// A JSON-RPC error. The codes are those of Bitcoin Core.
#[derive(Debug)]
struct Failure {
    code: i64,
    message: String,
}

impl Failure {
    const PARSE: i64 = -32700;
    const INVALID_REQUEST: i64 = -32600;
    const UNKNOWN_METHOD: i64 = -32601;
    const BAD_PARAMETER: i64 = -8;
    const NOT_FOUND: i64 = -5;
    const TX_DECODE: i64 = -22;
    const TX_MISSING_INPUT: i64 = -25;
    const TX_REJECTED: i64 = -26;
    const INTERNAL: i64 = -32603;

    fn new(code: i64, message: impl ToString) -> Failure {
        Failure { code, message: message.to_string() }
    }
}

/// HTTP basic authentication (RFC 7617).
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

async fn handle(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    if given != Some(server.authorization.as_bytes()) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"jsonrpc\"")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    let (id, result) = match serde_json::from_slice::<Value>(&body) {
        Ok(request) => (request["id"].clone(), answer(&server.chain, &request).await),
        Err(error) => (Value::Null, Err(Failure::new(Failure::PARSE, error))),
    };
    let (status, reply) = match result {
        Ok(result) => (StatusCode::OK, json!({ "result": result, "error": null, "id": id })),
        Err(Failure { code, message }) => {
            let status = match code {
                Failure::UNKNOWN_METHOD => StatusCode::NOT_FOUND,
                Failure::INVALID_REQUEST => StatusCode::BAD_REQUEST,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let error = json!({ "code": code, "message": message });
            (status, json!({ "result": null, "error": error, "id": id }))
        }
    };
    (status, [(header::CONTENT_TYPE, "application/json")], reply.to_string()).into_response()
}

async fn answer(chain: &EmbeddedChain, request: &Value) -> Result<Value, Failure> {
    let invalid = |text| Failure::new(Failure::INVALID_REQUEST, text);
    let method = request["method"].as_str().ok_or(invalid("no method"))?;
    let params = match &request["params"] {
        Value::Null => Params(&[]),
        Value::Array(params) => Params(params),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            return Err(invalid("parameters must be a list"));
        }
    };
    match method {
        "getblockchaininfo" => Ok(chain_info(chain)),
        "getbestblockhash" => Ok(json!(chain.tip().to_string())),
        "getblockcount" => Ok(json!(chain.height())),
        "getblockhash" => {
            let hash = chain.hash_at(params.number(0)?);
            hash.map(|hash| json!(hash.to_string()))
                .ok_or(Failure::new(Failure::BAD_PARAMETER, "Block height out of range"))
        }
        "getblockheader" => {
            let hash = params.hash(0)?;
            chain.header(&hash).map(|data| header_json(&hash, &data)).ok_or(no_block())
        }
        "getblock" => {
            if params.0.get(1).is_none_or(|verbosity| verbosity != 0) {
                return Err(Failure::new(Failure::BAD_PARAMETER, "only verbosity 0 is offered"));
            }
            let block = chain.block(&params.hash(0)?).ok_or(no_block())?;
            Ok(json!(serialize_hex(&block)))
        }
        "gettxout" => {
            let outpoint = OutPoint::new(params.parsed(0)?, params.number(1)?);
            Ok(chain.unspent_output(outpoint).map_or(Value::Null, |output| {
                json!({
                    "value": output.value.to_btc(),
                    "scriptPubKey": { "hex": output.script_pubkey.to_hex_string() },
                })
            }))
        }
        "getrawmempool" => {
            let txids = chain.mempool().iter().map(ToString::to_string).collect::<Vec<_>>();
            Ok(json!(txids))
        }
        "getrawtransaction" => raw_transaction(chain, params),
        "sendrawtransaction" => send(chain, params),
        "testmempoolaccept" => test_accept(chain, params),
        "generatetoaddress" => {
            let address: Address<_> = params.parsed(1)?;
            let address = address
                .require_network(Network::Regtest)
                .map_err(|error| Failure::new(Failure::NOT_FOUND, error))?;
            mine(chain, params.number(0)?, address.script_pubkey()).await
        }
        "generatetodescriptor" => {
            let script = raw_descriptor(params.text(1)?)?;
            mine(chain, params.number(0)?, script).await
        }
        "invalidateblock" => {
            let dropped = chain.invalidate(params.hash(0)?);
            dropped.map(|()| Value::Null).map_err(|e| Failure::new(Failure::NOT_FOUND, e))
        }
        "waitfornewblock" => wait_for_new_block(chain, params).await,
        _ => Err(Failure::new(Failure::UNKNOWN_METHOD, "Method not found")),
    }
}

fn chain_info(chain: &EmbeddedChain) -> Value {
    let (hash, height, median_time) = chain.best_block();
    json!({
        "chain": "regtest",
        "blocks": height,
        "headers": height,
        "bestblockhash": hash.to_string(),
        "mediantime": median_time,
        "initialblockdownload": false,
        "pruned": false,
    })
}

fn header_json(hash: &BlockHash, data: &BlockHeaderData) -> Value {
    let header = &data.header;
    let mut json = json!({
        "hash": hash.to_string(),
        "height": data.height,
        "version": header.version.to_consensus(),
        "merkleroot": header.merkle_root.to_string(),
        "time": header.time,
        "nonce": header.nonce,
        "bits": format!("{:08x}", header.bits.to_consensus()),
        "chainwork": data.chainwork.to_be_bytes().as_hex().to_string(),
    });
    if data.height > 0 {
        json["previousblockhash"] = json!(header.prev_blockhash.to_string());
    }
    json
}

fn raw_transaction(chain: &EmbeddedChain, params: Params<'_>) -> Result<Value, Failure> {
    let found = chain
        .find_transaction(params.parsed(0)?)
        .ok_or(Failure::new(Failure::NOT_FOUND, "No such mempool or blockchain transaction"))?;
    let hex = serialize_hex(&found.tx);
    if params.0.get(1).is_none_or(|verbosity| verbosity == 0 || verbosity == false) {
        return Ok(json!(hex));
    }
    let mut json = json!({ "txid": found.tx.compute_txid().to_string(), "hex": hex });
    if let Some((hash, height)) = found.block {
        json["blockhash"] = json!(hash.to_string());
        json["confirmations"] = json!(chain.height().saturating_sub(height) + 1);
    }
    Ok(json)
}

fn send(chain: &EmbeddedChain, params: Params<'_>) -> Result<Value, Failure> {
    let tx: Transaction = deserialize_hex(params.text(0)?)
        .map_err(|error| Failure::new(Failure::TX_DECODE, format!("TX decode failed: {error}")))?;
    match chain.broadcast(std::slice::from_ref(&tx)) {
        Ok(()) => Ok(json!(tx.compute_txid().to_string())),
        Err(error) if error.reason().contains("inputs-missingorspent") => {
            Err(Failure::new(Failure::TX_MISSING_INPUT, error.reason()))
        }
        Err(error) => Err(Failure::new(Failure::TX_REJECTED, error.reason())),
    }
}

fn test_accept(chain: &EmbeddedChain, params: Params<'_>) -> Result<Value, Failure> {
    let one = params.0.first().and_then(|txs| txs.get(0)).and_then(Value::as_str);
    let tx: Transaction = deserialize_hex(one.ok_or_else(|| Params::wrong(0, "a list of texts"))?)
        .map_err(|error| Failure::new(Failure::TX_DECODE, format!("TX decode failed: {error}")))?;
    let mut verdict = json!({ "txid": tx.compute_txid().to_string(), "allowed": true });
    if let Err(error) = chain.would_take(&tx) {
        verdict["allowed"] = json!(false);
        verdict["reject-reason"] = json!(error.reason());
    }
    Ok(json!([verdict]))
}

async fn mine(chain: &EmbeddedChain, blocks: u32, pay_to: ScriptBuf) -> Result<Value, Failure> {
    let hashes = chain
        .mine(blocks, &pay_to)
        .await
        .map_err(|error| Failure::new(Failure::INTERNAL, error))?;
    Ok(json!(hashes.iter().map(ToString::to_string).collect::<Vec<_>>()))
}

/// Of all output descriptors only `raw(<hex>)`, with or without a checksum.
fn raw_descriptor(text: &str) -> Result<ScriptBuf, Failure> {
    let (descriptor, _checksum) = text.split_once('#').unwrap_or((text, ""));
    descriptor
        .strip_prefix("raw(")
        .and_then(|rest| rest.strip_suffix(')'))
        .and_then(|hex| ScriptBuf::from_hex(hex).ok())
        .ok_or(Failure::new(Failure::NOT_FOUND, "only descriptors raw(<hex>) are offered"))
}

async fn wait_for_new_block(chain: &EmbeddedChain, params: Params<'_>) -> Result<Value, Failure> {
    let known = if params.0.len() > 1 { params.hash(1)? } else { chain.tip() };
    let wait = chain.wait_for_new_tip(known);
    match if params.0.is_empty() { 0 } else { params.number(0)? } {
        0 => wait.await,
        limit => {
            // After the time limit the answer is the old tip.
            let _ = tokio::time::timeout(Duration::from_millis(limit.into()), wait).await;
        }
    }
    let (hash, height, _) = chain.best_block();
    Ok(json!({ "hash": hash.to_string(), "height": height }))
}

fn no_block() -> Failure {
    Failure::new(Failure::NOT_FOUND, "Block not found")
}

/// The parameters of a call, by position.
#[derive(Clone, Copy)]
struct Params<'a>(&'a [Value]);

impl<'a> Params<'a> {
    fn text(self, index: usize) -> Result<&'a str, Failure> {
        let value = self.0.get(index).and_then(Value::as_str);
        value.ok_or_else(|| Self::wrong(index, "a text"))
    }

    fn number(self, index: usize) -> Result<u32, Failure> {
        let value = self.0.get(index).and_then(Value::as_u64);
        let value = value.and_then(|number| u32::try_from(number).ok());
        value.ok_or_else(|| Self::wrong(index, "a number from 0 to 4294967295"))
    }

    fn hash(self, index: usize) -> Result<BlockHash, Failure> {
        self.parsed(index)
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        self,
        index: usize,
    ) -> Result<T, Failure> {
        self.text(index)?
            .parse()
            .map_err(|error| Failure::new(Failure::BAD_PARAMETER, format!("{error}")))
    }

    fn wrong(index: usize, wanted: &str) -> Failure {
        let message = format!("parameter {} must be {wanted}", index + 1);
        Failure::new(Failure::BAD_PARAMETER, message)
    }
}
