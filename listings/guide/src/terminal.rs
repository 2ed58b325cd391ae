//! `node`: one party as a process of its own, with commands on standard input and one JSON object a
//! line on standard output.

use anyhow::{Context, Result, anyhow, bail};
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::secp256k1::PublicKey;
use clap::ValueEnum;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::offers::offer::Offer;
use lightning::util::ser::{Readable, Writeable};
use lsps2_async::lease::{LeaseRecord, LeaseState, TrustModel};
use lsps2_async::negotiate::NegotiationPolicy;
use lsps2_async::payer::PayerMode;
use node::faults::{Fault, Faults, Step};
use node::lsp::{Lsp, LspPolicy};
use node::payer::Payer;
use node::payer_lsp::PayerLsp;
use node::recipient::{Recipient, RecipientPolicy};
use node::transcript::{Transcript, What};
use node::{Node, NodeConfig};
use regtest::Chain;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

/// The environment variable that arms a fault before the party starts.
pub const FAULT: &str = "GUIDE_FAULT";

/// The four parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// The wallet that is paid while it is offline.
    Recipient,
    /// The recipient's LSP.
    Lsp,
    /// The payer.
    Payer,
    /// The payer's LSP.
    PayerLsp,
}

/// How to run a party.
pub struct Options {
    /// Which one.
    pub role: RoleName,
    /// Its folder.
    pub data: PathBuf,
    /// Where it takes connections.
    pub listen: SocketAddr,
    /// Its chain.
    pub chain: Chain,
    /// For a payer: whether it may go offline.
    pub payer: PayerMode,
    /// For an LSP: which side trusts.
    pub trust: TrustModel,
}

enum Party {
    Recipient(Recipient),
    Lsp(Lsp),
    Payer(Payer),
    PayerLsp(PayerLsp),
}

impl std::ops::Deref for Party {
    type Target = Node;
    fn deref(&self) -> &Node {
        match self {
            Party::Recipient(party) => party,
            Party::Lsp(party) => party,
            Party::Payer(party) => party,
            Party::PayerLsp(party) => party,
        }
    }
}

/// Runs until standard input ends or says `quit`. Everything that happens is printed; an answer to
/// a command is the object with `answer` or `error`.
pub async fn run(options: Options) -> Result<()> {
    let transcript = Transcript::new();
    let chain = options.chain.clone();
    let party = start(options, transcript.clone()).await?;
    say(json!({ "node_id": party.id().to_string(), "address": party.address().to_string() }));
    let printer = Arc::new(Printer { transcript, from: Mutex::new(0) });
    let printing = tokio::spawn(printer.clone().follow());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [] => continue,
            ["quit"] => break,
            ["steps"] => {
                let printer = printer.clone();
                party.faults().observe(move |step| printer.step(step));
                say(json!({ "command": "steps", "answer": null }));
            }
            _ => match answer(&party, &chain, &words).await {
                Ok(value) => say(json!({ "command": words[0], "answer": value })),
                Err(error) => {
                    say(json!({ "command": words[0], "error": format!("{error:#}") }));
                }
            },
        }
    }
    party.stop().await;
    printing.abort();
    Ok(())
}

async fn start(options: Options, transcript: Transcript) -> Result<Party> {
    let Options { role, data, listen, chain, payer, trust } = options;
    let name = role.to_possible_value().expect("no role is hidden").get_name().to_owned();
    let faults = Faults::killing();
    // For tests of what happens before the first command could be read.
    if let Ok(fault) = std::env::var(FAULT) {
        faults.arm(fault.parse()?);
    }
    let config = NodeConfig {
        name,
        data_dir: data,
        listen,
        chain,
        transcript,
        ahead: std::time::Duration::ZERO,
        faults,
        flags: |_| {},
    };
    Ok(match role {
        RoleName::Recipient => {
            Party::Recipient(Recipient::start(config, RecipientPolicy::default()).await?)
        }
        RoleName::Lsp => Party::Lsp(Lsp::start(config, LspPolicy::new(trust)).await?),
        RoleName::Payer => Party::Payer(Payer::start(config, payer).await?),
        RoleName::PayerLsp => Party::PayerLsp(PayerLsp::start(config).await?),
    })
}

fn say(value: Value) {
    println!("{value}");
}

/// Prints what happens. Wire messages are many; they are printed only by `demo --json`.
struct Printer {
    transcript: Transcript,
    /// What comes before this is printed.
    from: Mutex<u64>,
}

impl Printer {
    async fn follow(self: Arc<Self>) {
        loop {
            let from = *self.from.lock().unwrap();
            self.transcript.next(from).await;
            self.catch_up();
        }
    }

    fn catch_up(&self) {
        let mut from = self.from.lock().unwrap();
        for entry in self.transcript.since(*from) {
            *from = entry.seq + 1;
            if !matches!(entry.what, What::Wire { .. }) {
                say(json!(entry));
            }
        }
    }

    /// Whoever kills itself at a step has said before what led there.
    fn step(&self, step: &Step) {
        self.catch_up();
        say(json!({ "step": step }));
    }
}

async fn answer(party: &Party, chain: &Chain, words: &[&str]) -> Result<Value> {
    match (party, words) {
        (_, ["help"]) => Ok(json!(help(party))),
        (_, ["status"]) => status(party, chain).await,
        (_, ["balances"]) => Ok(json!(party.balances())),
        (_, ["address"]) => Ok(json!({ "script": party.wallet_script()?.to_hex_string() })),
        (_, ["mine", blocks]) => mine(party, chain, blocks).await,
        // For tests: where this process kills itself, and what time it is. `steps` has it print each.
        (_, ["fault", "none"]) => {
            party.faults().disarm();
            Ok(json!({ "armed": null }))
        }
        (_, ["fault", rest @ ..]) => {
            let fault: Fault = rest.join(" ").parse()?;
            party.faults().arm(fault.clone());
            Ok(json!({ "armed": fault.to_string() }))
        }
        (_, ["clock", seconds]) => {
            party.clock().advance(Duration::from_secs(seconds.parse()?));
            Ok(json!({ "ahead": seconds }))
        }
        (Party::Recipient(party), ["connect", peer]) => {
            let (id, address) = parse_peer(peer)?;
            party.connect_lsp(id, address).await?;
            Ok(json!({ "connected": id.to_string() }))
        }
        (_, ["connect", peer]) => {
            let (id, address) = parse_peer(peer)?;
            party.connect(id, address).await?;
            Ok(json!({ "connected": id.to_string() }))
        }
        (_, ["open-channel", peer, capacity_sat, rest @ ..]) => {
            let announced = match rest {
                [] => false,
                ["announced"] => true,
                _ => bail!("open-channel NODE_ID SAT [announced]"),
            };
            party.open_channel(peer.parse()?, capacity_sat.parse()?, announced)?;
            Ok(json!({ "opening": capacity_sat }))
        }
        (Party::Lsp(party), ["paths", recipient_id]) => {
            let paths = party.paths_for(recipient_id.as_bytes()).await?;
            Ok(json!({ "paths": encode_paths(&paths).to_lower_hex_string() }))
        }
        (Party::Lsp(party), ["leases"]) => {
            let sold = party.sold().into_iter().map(|record| json!(format!("{record:?}")));
            Ok(json!({ "sold": sold.collect::<Vec<_>>() }))
        }
        (Party::Recipient(party), ["lease", lsp, rest @ ..]) => {
            let policy = buying_policy(rest)?;
            let lease = party.buy_lease(lsp.parse()?, policy).await?;
            Ok(json!({ "lease": lease.id.to_string() }))
        }
        (Party::Recipient(party), ["use-paths", hex]) => {
            party.use_paths(decode_paths(&Vec::from_hex(hex)?)?)?;
            Ok(json!({ "asked": "the server for offer paths" }))
        }
        (Party::Recipient(party), ["offer"]) => {
            let offer = party.wait_for_offer(Duration::from_secs(5)).await?;
            Ok(json!({ "offer": offer.to_string() }))
        }
        (Party::Recipient(party), ["leases"]) => {
            Ok(json!({ "leases": party.leases().iter().map(lease).collect::<Vec<_>>() }))
        }
        (Party::Payer(party), ["pay", offer, amount_msat]) => {
            let offer: Offer = offer.parse().map_err(|e| anyhow!("not an offer: {e:?}"))?;
            let id = party.pay(&offer, amount_msat.parse().context("the amount, in msat")?)?;
            Ok(json!({ "payment_id": id.to_string() }))
        }
        _ => bail!("no such command for this party; it takes: {}", help(party).join(" | ")),
    }
}

fn help(party: &Party) -> Vec<&'static str> {
    let mut commands = vec![
        "connect NODE_ID@HOST:PORT",
        "open-channel NODE_ID SAT [announced]",
        "balances",
        "status",
        "address",
        "mine BLOCKS",
    ];
    commands.extend(match party {
        Party::Recipient(_) => {
            &["lease LSP_ID [MAX_FEE_MSAT]", "use-paths HEX", "offer", "leases"][..]
        }
        Party::Lsp(_) => &["paths RECIPIENT_ID", "leases"],
        Party::Payer(_) => &["pay OFFER MSAT"],
        Party::PayerLsp(_) => &[],
    });
    commands.extend(["help", "quit"]);
    commands
}

async fn status(party: &Party, chain: &Chain) -> Result<Value> {
    Ok(json!({
        "node_id": party.id().to_string(),
        "address": party.address().to_string(),
        "peers": party.peers(),
        "height": chain.height().await?,
        "synced_to": party.channel_manager().current_best_block().height,
        "announced": party.knows_node(&party.id()),
        "announced_nodes": party.announced_nodes(),
    }))
}

/// Mines to this party's wallet; coinbases can be spent after 100 more blocks.
async fn mine(party: &Party, chain: &Chain, blocks: &str) -> Result<Value> {
    chain.mine(blocks.parse()?, &party.wallet_script()?).await?;
    Ok(json!({ "height": chain.height().await? }))
}

fn buying_policy(words: &[&str]) -> Result<NegotiationPolicy> {
    let max_fee_msat = match words {
        [] => 10_000_000,
        [max_fee_msat] => max_fee_msat.parse().context("the largest fee, in msat")?,
        _ => bail!("lease LSP_ID [MAX_FEE_MSAT]"),
    };
    Ok(NegotiationPolicy {
        payment_size_msat: 100_000_000,
        fixed_size: false,
        max_fee_msat,
        min_validity: Duration::from_secs(24 * 60 * 60),
        our_to_self_delay: 144,
        trust_model: TrustModel::ClientTrustsLsp,
        timeout: Duration::from_secs(30),
        token: None,
    })
}

fn lease(record: &LeaseRecord) -> Value {
    let params = &record.lease.opening_fee_params;
    json!({
        "lease": record.lease.id.to_string(),
        "state": match &record.state {
            LeaseState::Active => "active",
            LeaseState::Consumed(_) => "consumed",
            LeaseState::Expired => "expired",
        },
        "min_fee_msat": params.min_fee_msat,
        "proportional": params.proportional,
        "valid_until": params.valid_until.as_secs(),
        "min_payment_size_msat": params.min_payment_size_msat,
        "max_payment_size_msat": params.max_payment_size_msat,
    })
}

fn parse_peer(peer: &str) -> Result<(PublicKey, SocketAddr)> {
    let (id, address) = peer.split_once('@').context("a peer is NODE_ID@HOST:PORT")?;
    Ok((id.parse().context("the node id")?, address.parse().context("the address")?))
}

/// One after the other, as LDK writes them.
fn encode_paths(paths: &[BlindedMessagePath]) -> Vec<u8> {
    paths.iter().flat_map(|path| path.encode()).collect()
}

/// What the answer to `paths` holds, in hex.
///
/// # Errors
/// If these are no paths.
pub fn decode_paths(bytes: &[u8]) -> Result<Vec<BlindedMessagePath>> {
    let (mut rest, mut paths) = (bytes, Vec::new());
    while !rest.is_empty() {
        let path = BlindedMessagePath::read(&mut rest);
        paths.push(path.map_err(|e| anyhow!("these are not paths of an LSP: {e}"))?);
    }
    Ok(paths)
}
