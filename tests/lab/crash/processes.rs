//! A node as a process of its own: the recipient's LSP, killed at one write after the other, and the
//! recipient, killed as it claims.

use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::hex::FromHex;
use bitcoin::secp256k1::PublicKey;
use guide::lab;
use guide::money::Books;
use guide::terminal::{FAULT, decode_paths};
use guide::world::{PATIENCE, Story, World, is_wire, wallets_terms};
use lightning::offers::offer::Offer;
use lightning::util::persist::KVStoreSync;
use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::jit_table::{JitState, JitTable};
use lsps2_async::payer::PayerMode;
use node::faults::{Fault, Step, points};
use node::recipient::{Recipient, RecipientPolicy};
use node::transcript::{Entry, HtlcState, Transcript, What};
use node::{Disk, Node};
use regtest::{Chain, EmbeddedChain};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::recorded;

/// What is paid each time, in msat, and what the lease asks for it.
const AMOUNT_MSAT: u64 = 20_000_000;
const FEE_MSAT: u64 = 2_000_000;

/// A `node` process. What it prints of its events stands in the world's transcript.
struct NodeProcess {
    child: Child,
    stdin: ChildStdin,
    answers: mpsc::UnboundedReceiver<Value>,
    steps: Arc<Mutex<Vec<Step>>>,
    reading: JoinHandle<()>,
}

/// How such a process is started, again and again.
struct Launch {
    role: &'static str,
    data: PathBuf,
    listen: SocketAddr,
    chain: SocketAddr,
    trust: TrustModel,
}

impl NodeProcess {
    async fn start(launch: &Launch, transcript: &Transcript) -> Result<Self> {
        Self::dying(launch, transcript, None).await
    }

    /// One that dies at this fault, perhaps before it can be told anything.
    async fn dying(
        launch: &Launch,
        transcript: &Transcript,
        fault: Option<&Fault>,
    ) -> Result<Self> {
        let trust = match launch.trust {
            TrustModel::LspTrustsClient => "lsp",
            TrustModel::ClientTrustsLsp => "client",
        };
        let mut child = Command::new(env!("CARGO_BIN_EXE_guide"))
            .envs(fault.map(|fault| (FAULT, fault.to_string())))
            .args(["node", launch.role, "--trust", trust, "--data"])
            .arg(&launch.data)
            .args(["--listen", &launch.listen.to_string(), "--chain", &launch.chain.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (sender, answers) = mpsc::unbounded_channel();
        let (steps, transcript) = (Arc::<Mutex<Vec<Step>>>::default(), transcript.clone());
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let (seen, name) = (steps.clone(), launch.role);
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let line = named(line, &transcript);
                let Ok(mut value) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(step) = value.get_mut("step") {
                    seen.lock().unwrap().push(serde_json::from_value(step.take()).unwrap());
                } else if value.get("kind").is_some() {
                    let entry: Entry = serde_json::from_value(value).unwrap();
                    transcript.record(name, entry.what);
                } else {
                    let _ = sender.send(value);
                }
            }
        });
        let stdin = child.stdin.take().context("piped")?;
        let mut node = Self { child, stdin, answers, steps, reading };
        let hello = node.answers.recv().await;
        ensure!(hello.is_some() || fault.is_some(), "the process does not say hello");
        Ok(node)
    }

    /// `None` if the process has died over it.
    async fn ask(&mut self, command: &str) -> Result<Option<Value>> {
        if self.stdin.write_all(format!("{command}\n").as_bytes()).await.is_err() {
            return Ok(None);
        }
        let Some(answer) = self.answers.recv().await else { return Ok(None) };
        ensure!(answer.get("error").is_none(), "{command}: {answer}");
        Ok(Some(answer["answer"].clone()))
    }

    /// Waits until it has killed itself and everything it said was read.
    async fn died(&mut self) -> Result<()> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().await?;
        ensure!(status.signal() == Some(9), "the process ended otherwise: {status}");
        if !self.reading.is_finished() {
            let _ = (&mut self.reading).await;
        }
        Ok(())
    }

    fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap().clone()
    }
}

/// Node ids, which are all that another process knows, become names.
fn named(mut line: String, transcript: &Transcript) -> String {
    for (id, name) in transcript.introduced() {
        line = line.replace(&format!("\"{id}\""), &format!("\"{name}\""));
    }
    line
}

/// A world whose LSP is a process.
struct Stage {
    world: World,
    lsp: NodeProcess,
    launch: Launch,
    lsp_id: PublicKey,
    recipients: u32,
    serving: JoinHandle<()>,
}

/// What became of a payment over a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It went through.
    Paid,
    /// It came back whole, and the next one went through.
    CameBack,
}

/// One payment with its crash.
struct Played {
    fired: bool,
    steps: Vec<Step>,
    left: Left,
    end: End,
}

/// What a dead LSP has left on its disk of the lease that was being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    table: &'static str,
    monitor: bool,
}

impl Stage {
    async fn new(trust: TrustModel) -> Result<Self> {
        let (chain, address, serving) = served_chain().await?;
        let mut story = Story::new(PayerMode::OftenOffline, trust);
        story.lsp_coins = 12;
        let mut world = World::new(chain, story).await?;
        lab::begin(&world, "crash", "The LSP is killed").await?;
        let launch = Launch {
            role: "lsp",
            data: world.node_config("lsp").data_dir,
            listen: world.lsp().address(),
            chain: address,
            trust,
        };
        let lsp_id = world.lsp().id();
        world.stop_lsp().await;
        let from = world.transcript.position();
        let lsp = NodeProcess::start(&launch, &world.transcript).await?;
        let stage = Self { world, lsp, launch, lsp_id, recipients: 0, serving };
        stage.lsp_is_back(from).await?;
        Ok(stage)
    }

    async fn lsp_is_back(&self, from: u64) -> Result<()> {
        let back = |e: &Entry| e.node == "payer-lsp" && is_wire(e, "channel_reestablish");
        self.world.see(from, back).await?;
        Ok(())
    }

    async fn start_recipient(&self, name: &str) -> Result<Recipient> {
        let from = self.world.transcript.position();
        let config = self.world.node_config(name);
        let recipient = Recipient::start(config, RecipientPolicy::default()).await?;
        recipient.connect_lsp(self.lsp_id, self.launch.listen).await?;
        let there = |e: &Entry| matches!(&e.what, What::Connected { peer } if peer == name);
        self.world.see(from, |e| e.node == "lsp" && there(e)).await?;
        Ok(recipient)
    }

    /// A new recipient with an offer, and away.
    async fn new_recipient(&mut self) -> Result<(String, Offer)> {
        self.recipients += 1;
        let name = format!("recipient-{}", self.recipients);
        let recipient = self.start_recipient(&name).await?;
        recipient.buy_lease(self.lsp_id, wallets_terms()).await?;
        let answer = self.lsp.ask(&format!("paths {name}")).await?.context("the LSP is alive")?;
        let hex = answer["paths"].as_str().context("paths")?;
        recipient.use_paths(decode_paths(&Vec::from_hex(hex)?)?)?;
        let offer = recipient.wait_for_offer(PATIENCE).await?;
        let from = self.world.transcript.position();
        recipient.stop().await;
        let gone = |e: &Entry| matches!(&e.what, What::Disconnected { peer } if *peer == name);
        self.world.see(from, |e| e.node == "lsp" && gone(e)).await?;
        Ok((name, offer))
    }

    /// A payment to a new recipient, over whose arrival the LSP is killed. Everything is checked.
    async fn play(&mut self, fault: &Fault) -> Result<Played> {
        let (name, offer) = self.new_recipient().await?;
        let (before, monitors_before) = (self.money(), self.monitors()?);
        let from = self.world.transcript.position();
        self.world.pay_while_recipient_is_offline(&offer, AMOUNT_MSAT).await?;
        let armed = fault.clone().since(points::HTLC_INTERCEPTED);
        self.lsp.ask("steps").await?;
        let steps_before = self.lsp.steps().len();
        self.lsp.ask(&format!("fault {armed}")).await?.context("the LSP is alive")?;
        let recipient = self.start_recipient(&name).await?;
        let survived = tokio::select! {
            died = self.lsp.died() => died.map(|()| false)?,
            ended = ended(&self.world, &name, from) => ended.map(|_| true)?,
        };
        // It may still come to it as long as it is armed.
        let fired = !survived || self.lsp.ask("fault none").await?.is_none();
        if fired {
            self.lsp.died().await?;
        }
        let steps = self.lsp.steps().split_off(steps_before);
        let left = self.left(recipient.id(), monitors_before).await?;
        if fired {
            self.world.transcript.record("lsp", What::Stopped);
            let then = self.world.transcript.position();
            self.lsp = NodeProcess::start(&self.launch, &self.world.transcript).await?;
            self.lsp_is_back(then).await?;
        }
        let end = ended(&self.world, &name, from).await?;
        let paid_from = match end {
            End::Paid => from,
            End::CameBack => {
                self.nothing_is_under_way(&recipient).await?;
                ensure!(self.money() == before, "{:?} and not {before:?}", self.money());
                self.is_back(&recipient).await?;
                let from = self.world.transcript.position();
                self.world.payer().pay(&offer, AMOUNT_MSAT)?;
                let again = ended(&self.world, &name, from).await?;
                ensure!(again == End::Paid, "it cannot be paid afterwards");
                from
            }
        };
        self.is_settled(&recipient, paid_from).await?;
        let books = Books::of_one_payment(&self.world.transcript.since(paid_from))?;
        ensure!(books.opening_fee_msat == FEE_MSAT, "{books:?}");
        // Never twice, and the offer stays good.
        let then = self.world.transcript.position();
        self.world.payer().pay(&offer, AMOUNT_MSAT)?;
        ensure!(ended(&self.world, &name, then).await? == End::Paid, "a second payment fails");
        self.is_settled(&recipient, then).await?;
        let books = Books::of_one_payment(&self.world.transcript.since(then))?;
        ensure!(books.opening_fee_msat == 0, "{books:?}");
        self.check_money(before, &recipient)?;
        self.confirm(&recipient, &name).await?;
        recipient.stop().await;
        Ok(Played { fired, steps, left, end })
    }

    fn monitors(&self) -> Result<usize> {
        Ok(KVStoreSync::list(&Disk::plain(&self.launch.data), "monitors", "")?.len())
    }

    async fn left(&self, client: PublicKey, monitors_before: usize) -> Result<Left> {
        let disk = Arc::new(Disk::plain(&self.launch.data));
        let records = JitTable::load(disk).await?.all();
        let record = records.iter().find(|record| record.client_node_id == client);
        let record = record.context("the lease was sold")?;
        let funding = record.funding.as_ref();
        let table = match &record.state {
            JitState::Sold => "sold",
            JitState::Opening(_) if funding.is_some_and(|f| f.broadcast_safe) => "opening, safe",
            JitState::Opening(_) if funding.is_some() => "opening, funded",
            JitState::Opening(_) => "opening",
            JitState::Open(open) if open.fee_paid => "open, paid",
            JitState::Open(_) => "open",
            JitState::Retired(_) => "retired",
        };
        Ok(Left { table, monitor: self.monitors()? > monitors_before })
    }

    /// What the payer can send to its LSP, and that to the recipient's LSP, in msat. Both fund these
    /// channels, so this is to the msat what they have there.
    fn money(&self) -> (u64, u64) {
        let to = |node: &Node, peer: &str| {
            let channels = node.balances().channels;
            channels.iter().filter(|c| c.peer == peer).map(|c| c.outbound_msat).sum()
        };
        (to(self.world.payer(), "payer-lsp"), to(&self.world.payer_lsp, "lsp"))
    }

    /// Two payments and one opening fee. The LSP has the rest: the other ends of its channels.
    fn check_money(&self, (payer, payer_lsp): (u64, u64), recipient: &Recipient) -> Result<()> {
        const ROUTING_MSAT: u64 = 1_000;
        let (payer_now, payer_lsp_now) = self.money();
        let sent = 2 * (AMOUNT_MSAT + ROUTING_MSAT);
        ensure!(payer - payer_now == sent, "the payer sent {}", payer - payer_now);
        let given = payer_lsp - payer_lsp_now;
        ensure!(given == 2 * AMOUNT_MSAT, "the payer's LSP gave the other LSP {given}");
        let balances = recipient.balances();
        let [channel] = &balances.channels[..] else { return Err(anyhow!("{balances:?}")) };
        let received = channel.outbound_msat + channel.reserve_sat * 1_000;
        ensure!(received == 2 * AMOUNT_MSAT - FEE_MSAT, "the recipient has {received}");
        Ok(())
    }

    async fn is_settled(&self, recipient: &Recipient, from: u64) -> Result<()> {
        self.world.see_htlc(from, "lsp", HtlcState::Forwarded).await?;
        self.world.see_htlc(from, "payer-lsp", HtlcState::Forwarded).await?;
        self.nothing_is_under_way(recipient).await
    }

    /// The recipient can be paid again: it is connected, and its channel, if it has one, works.
    async fn is_back(&self, recipient: &Recipient) -> Result<()> {
        let back = || {
            let channels = recipient.channel_manager().list_channels();
            recipient.is_connected(&self.lsp_id) && channels.iter().all(|c| c.is_usable)
        };
        self.world.see(0, |_| back()).await.context("the recipient does not come back")?;
        Ok(())
    }

    /// No HTLC in any channel. Each of the LSP's has its other end in this process.
    async fn nothing_is_under_way(&self, recipient: &Recipient) -> Result<()> {
        let idle = |node: &Node| {
            let channels = node.channel_manager().list_channels();
            channels.iter().all(|channel| {
                channel.pending_inbound_htlcs.is_empty()
                    && channel.pending_outbound_htlcs.is_empty()
            })
        };
        let all = || idle(self.world.payer()) && idle(&self.world.payer_lsp) && idle(recipient);
        self.world.see(0, |_| all()).await.context("an HTLC hangs")?;
        Ok(())
    }

    /// The channel is there on chain, too: also where the LSP withheld its funding.
    async fn confirm(&self, recipient: &Recipient, name: &str) -> Result<()> {
        let funding = recipient.channel_manager().list_channels()[0].funding_txo;
        let txid = funding.context("a funding")?.txid;
        self.world.see(0, |e| self.is_broadcast(e, &txid.to_string())).await?;
        let from = self.world.transcript.position();
        self.world.mine(1).await?;
        for node in ["lsp", name] {
            let block = |e: &Entry| e.node == node && matches!(e.what, What::Block { .. });
            self.world.see(from, block).await?;
        }
        ensure!(
            recipient.channel_manager().list_channels()[0].confirmations == Some(1),
            "the funding of the channel is not in the block"
        );
        Ok(())
    }

    fn is_broadcast(&self, entry: &Entry, wanted: &str) -> bool {
        let What::Broadcast { txid, error: None, .. } = &entry.what else { return false };
        entry.node == "lsp" && txid == wanted
    }

    async fn stop(mut self) {
        drop(self.lsp.child.kill().await);
        self.world.stop().await;
        self.serving.abort();
    }
}

/// A chain in this process, for other processes too.
async fn served_chain() -> Result<(Chain, SocketAddr, JoinHandle<()>)> {
    let embedded = EmbeddedChain::new();
    let login = || "guide".to_owned();
    let loopback = (Ipv4Addr::LOCALHOST, 0).into();
    let (address, serving) = regtest::serve(embedded.clone(), loopback, login(), login()).await?;
    let serving = tokio::spawn(async move { drop(serving.await) });
    Ok((Chain::Embedded(embedded), address, serving))
}

/// What became of the payment under way: it is with the recipient, or with the payer again.
async fn ended(world: &World, recipient: &str, from: u64) -> Result<End> {
    let ended = world
        .see(from, |e| match &e.what {
            What::Htlc { state: HtlcState::Paid | HtlcState::Failed, .. } => e.node == "payer",
            _ => false,
        })
        .await
        .with_context(|| format!("the payment to {recipient} hangs"))?;
    Ok(match ended.what {
        What::Htlc { state: HtlcState::Paid, .. } => End::Paid,
        _ => End::CameBack,
    })
}

/// A write, without what differs from run to run.
fn kind(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

fn told(steps: &[Step]) -> String {
    let told: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Point(point) => Some(format!("[{point}]")),
            Step::After(write) => Some(match write.bytes {
                Some(_) => write.key.clone(),
                None => format!("-{}", kind(&write.key)),
            }),
            Step::Before(_) => None,
        })
        .collect();
    told.join(" ")
}

/// A place to die at, what the page says of it, and how the payment may end: first as it usually does.
type Row = (&'static str, &'static str, &'static [End]);

const PAID: &[End] = &[End::Paid];
/// Depends on whether the client is connected again by the time LDK goes on.
const MOSTLY_PAID: &[End] = &[End::Paid, End::CameBack];
const MOSTLY_BACK: &[End] = &[End::CameBack, End::Paid];

/// Nobody broadcasts the funding before the fee is paid.
const CLIENT_TRUSTS: &[Row] = &[
    ("before lsps2_jit_table 1", "before our table says opening", MOSTLY_BACK),
    ("after lsps2_jit_table 1", "after it", PAID),
    ("after lightning_liquidity_state/lsps2_service 1", "after LSPS2 has the HTLC", PAID),
    ("at after-create-channel", "after create_channel", PAID),
    ("after lsps2_jit_table 2", "after our table has the funding", PAID),
    ("before monitors 1", "before the channel's first monitor", MOSTLY_BACK),
    ("after monitors 1", "after it", MOSTLY_PAID),
    ("after lsps2_jit_table 3", "after the funding is safe", MOSTLY_PAID),
    ("after lsps2_jit_table 4", "after our table says open", MOSTLY_PAID),
    ("after lightning_liquidity_state/lsps2_service 2", "after LSPS2 says so, too", MOSTLY_BACK),
    ("at after-forward", "after the forward, not written", MOSTLY_BACK),
    ("before lsps2_jit_table 5", "before the fee is booked", PAID),
    ("after lsps2_jit_table 5", "after it", PAID),
];

/// LDK broadcasts the funding as soon as the client has signed.
const LSP_TRUSTS: &[Row] = &[
    ("before monitors 1", "before the channel's first monitor", MOSTLY_BACK),
    ("after monitors 1", "after it", MOSTLY_PAID),
    ("after lsps2_jit_table 2", "after our table says open", MOSTLY_PAID),
    ("at after-forward", "after the forward, not written", MOSTLY_BACK),
    ("before lsps2_jit_table 3", "before the fee is booked", PAID),
];

/// Plays these, several worlds at a time, and returns the table of it.
async fn play_all(trust: TrustModel, rows: &'static [Row], lanes: usize) -> String {
    let next = Arc::new(AtomicUsize::new(0));
    let mut playing = JoinSet::new();
    for _ in 0..lanes {
        let next = next.clone();
        playing.spawn(async move {
            let mut stage = Stage::new(trust).await.unwrap();
            let mut played = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((fault, _, ends)) = rows.get(at) else { break };
                let done = stage.play(&fault.parse().unwrap()).await;
                let done = done.with_context(|| format!("{trust:?} {fault}")).unwrap();
                assert!(done.fired, "{fault}: it does not come to this: {}", told(&done.steps));
                assert!(ends.contains(&done.end), "{fault}: {:?}", done.end);
                played.push((at, done.left));
            }
            stage.stop().await;
            played
        });
    }
    let mut left = BTreeMap::new();
    while let Some(lane) = playing.join_next().await {
        left.extend(lane.unwrap());
    }
    let mut table = format!("{:<36}{:<17}{:<9}{}\n", "killed", "our table", "monitor", "payment");
    for ((_, says, ends), (_, Left { table: state, monitor })) in rows.iter().zip(left) {
        let monitor = if monitor { "there" } else { "none" };
        let end = match *ends {
            [End::Paid] => "paid",
            [End::CameBack] => "back",
            [End::Paid, ..] => "paid, or back",
            [End::CameBack, ..] | [] => "back, or paid",
        };
        writeln!(table, "{says:<36}{state:<17}{monitor:<9}{end}").unwrap();
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_lsp_that_is_killed_at_a_write_loses_nothing() {
    let table = play_all(TrustModel::ClientTrustsLsp, CLIENT_TRUSTS, 3).await;
    recorded::compare("crash-client-trusts", &table);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusting_lsp_that_is_killed_at_a_write_loses_nothing() {
    let table = play_all(TrustModel::LspTrustsClient, LSP_TRUSTS, 1).await;
    recorded::compare("crash-lsp-trusts", &table);
}

/// Killed before *consumed* is on disk, between it and `claim_funds`, and right after that.
#[tokio::test(flavor = "multi_thread")]
async fn a_recipients_process_that_is_killed_as_it_claims_is_paid_for_one_fee() {
    let (chain, address, serving) = served_chain().await.unwrap();
    let trust = TrustModel::ClientTrustsLsp;
    let mut world = World::new(chain, Story::new(PayerMode::OftenOffline, trust)).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, AMOUNT_MSAT).await.unwrap();
    let launch = Launch {
        role: "recipient",
        data: world.node_config("recipient").data_dir,
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        chain: address,
        trust,
    };
    for point in [points::BEFORE_CONSUMED, points::AFTER_CONSUMED, points::AFTER_CLAIM_FUNDS] {
        let fault = Fault::at(point);
        let started = NodeProcess::dying(&launch, &world.transcript, Some(&fault)).await;
        let mut recipient = started.unwrap();
        let died = tokio::time::timeout(PATIENCE, recipient.died()).await;
        died.unwrap_or_else(|_| panic!("it does not come to {point}")).unwrap();
        world.transcript.record("recipient", What::Stopped);
    }
    let mut recipient = NodeProcess::start(&launch, &world.transcript).await.unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, FEE_MSAT);
    assert_eq!(books.recipient_received_msat, AMOUNT_MSAT - FEE_MSAT);
    let leases = recipient.ask("leases").await.unwrap().unwrap();
    assert_eq!(leases["leases"][0]["state"], "consumed");
    recipient.child.kill().await.unwrap();
    world.stop().await;
    serving.abort();
}

/// Plays all writes, several worlds at a time, until a payment ends without a crash.
async fn every_write(trust: TrustModel) {
    const LANES: u32 = 4;
    let next = Arc::new(AtomicU32::new(0));
    let over = Arc::new(AtomicU32::new(u32::MAX));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (next, over) = (next.clone(), over.clone());
        lanes.spawn(async move {
            let mut stage = Stage::new(trust).await.unwrap();
            loop {
                let point = next.fetch_add(1, Ordering::Relaxed);
                if point >= over.load(Ordering::Relaxed) {
                    break;
                }
                let nth = point / 2 + 1;
                let fault = match point % 2 {
                    0 => Fault::before_write(nth),
                    _ => Fault::after_write(nth),
                };
                let played = stage.play(&fault).await;
                let played = played.with_context(|| format!("{trust:?} {fault}")).unwrap();
                let Played { fired, end, steps, .. } = played;
                eprintln!("{trust:?} {fault}: fired {fired}, {end:?}: {}", told(&steps));
                if !fired {
                    over.fetch_min(point, Ordering::Relaxed);
                }
            }
            stage.stop().await;
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: every write, one after the other"]
async fn every_write_of_an_lsp_that_is_trusted() {
    every_write(TrustModel::ClientTrustsLsp).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: every write, one after the other"]
async fn every_write_of_an_lsp_that_trusts() {
    every_write(TrustModel::LspTrustsClient).await;
}
