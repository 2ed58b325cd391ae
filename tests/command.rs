//! The program: what `demo` prints and refuses, and the four parties as processes of their own.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guide");
const PATIENCE: Duration = Duration::from_secs(60);

fn demo(args: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("demo").args(args).env_remove("BITCOIND_EXE");
    command.output().unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn demo_ends_with_a_summary_in_which_every_msat_is_accounted_for() {
    let output = demo(&["--json", "--payer", "online", "--trust", "lsp", "--amount", "250000001"]);
    assert!(output.status.success(), "{output:?}");
    let lines = json_lines(&output);
    let summary = lines.last().unwrap();
    assert_eq!(summary["outcome"], "paid");
    assert_eq!(summary["opening_fee_msat"], 2_500_001, "1 %, rounded up");
    assert_eq!(summary["recipient_received_msat"], 250_000_001 - 2_500_001);
    assert_eq!(summary["routing_fee_msat"], 1_000);
    assert_eq!(summary["payer_sent_msat"], 250_000_001 + 1_000);
    assert!(summary["channel_capacity_sat"].as_u64().unwrap() > 247_500);
    assert!(summary["elapsed_ms"].as_u64().unwrap() > 0);
    let named = |node: &str| lines.iter().any(|line| line["node"] == node);
    assert!(["payer", "payer-lsp", "lsp", "recipient"].into_iter().all(named));
}

#[test]
fn demo_shows_a_person_the_steps_and_the_money() {
    let output = demo(&[]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for step in ["Step 1:", "Step 4:", "Step 5:", "Where every msat went"] {
        assert!(text.contains(step), "no {step:?} in:\n{text}");
    }
    assert!(text.contains("98 000 000 msat"), "{text}");
}

#[test]
fn demo_refuses_an_amount_that_no_lease_serves_and_says_what_to_do() {
    for (amount, advice) in [
        ("9999999", "use --amount 10000000 or more"),
        ("2000000001", "use --amount 2000000000 or less"),
    ] {
        let output = demo(&["--amount", amount]);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(advice), "{error}");
        let output = demo(&["--amount", amount, "--json"]);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(json_lines(&output).last().unwrap()["outcome"], "refused");
    }
}

#[test]
fn demo_on_bitcoind_without_one_says_what_to_set() {
    let output = demo(&["--chain", "bitcoind"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("BITCOIND_EXE"));
}

/// A process that takes commands on standard input and prints JSON.
struct Party {
    child: Child,
    stdin: ChildStdin,
    lines: Arc<(Mutex<Vec<Value>>, Condvar)>,
    read: usize,
}

impl Party {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Arc<(Mutex<Vec<Value>>, Condvar)> = Arc::default();
        let (stdout, sink) = (child.stdout.take().unwrap(), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sink.0.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                sink.1.notify_all();
            }
        });
        Self { stdin: child.stdin.take().unwrap(), child, lines, read: 0 }
    }

    fn node(role: &str, data: &Path, chain: &str) -> Self {
        let data = data.join(role);
        Self::start(&["node", role, "--data", data.to_str().unwrap(), "--chain", chain])
    }

    /// Waits for a line that was not waited for before.
    fn see(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let (lines, more) = &*self.lines;
        let mut lines = lines.lock().unwrap();
        loop {
            if let Some(found) = lines[self.read..].iter().position(&is_it) {
                self.read += found + 1;
                return lines[self.read - 1].clone();
            }
            let (next, timeout) = more.wait_timeout(lines, PATIENCE).unwrap();
            assert!(!timeout.timed_out(), "no {what} in {:#?}", &next[self.read..]);
            lines = next;
        }
    }

    /// Sends a command and returns its answer. Events before the answer may still be waited for.
    fn ask(&mut self, command: &str) -> Value {
        let answer = self.ask_for_anything(command);
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["answer"].clone()
    }

    fn ask_for_anything(&mut self, command: &str) -> Value {
        writeln!(self.stdin, "{command}").unwrap();
        let name = command.split(' ').next().unwrap();
        let read = self.read;
        let answer = self.see(command, |line| line["command"] == name);
        // The answer itself must not be found again by the next command of this name.
        self.lines.0.lock().unwrap().remove(self.read - 1);
        self.read = read;
        answer
    }

    fn see_htlc(&mut self, state: &str) -> Value {
        self.see(state, |line| line["kind"] == "htlc" && line["state"] == state)
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The README's four terminals and a chain, in the order of the page "Your wallet against our nodes".
/// The recipient is not stopped but killed.
#[test]
fn four_processes_on_a_served_chain_play_the_whole_flow() {
    let folder = tempfile::tempdir().unwrap();
    let mut chain = Party::start(&["chain", "--listen", "127.0.0.1:0"]);
    let address = chain.see("address", |line| line.get("chain").is_some());
    let address = address["chain"].as_str().unwrap().to_owned();
    let start = |role: &str| {
        let mut party = Party::node(role, folder.path(), &address);
        let hello = party.see("node id", |line| line.get("node_id").is_some());
        let at = |key: &str| hello[key].as_str().unwrap().to_owned();
        (party, at("node_id"), at("address"))
    };
    let (mut payer, _, _) = start("payer");
    let (mut payer_lsp, payer_lsp_id, payer_lsp_address) = start("payer-lsp");
    let (mut lsp, lsp_id, lsp_address) = start("lsp");
    for party in [&mut payer, &mut payer_lsp, &mut lsp] {
        party.ask("mine 1");
    }
    let mined = |chain: &mut Party, blocks: u32, parties: [&mut Party; 3]| {
        writeln!(chain.stdin, "mine {blocks}").unwrap();
        let height = chain.see("height", |line| line.get("height").is_some())["height"].clone();
        for party in parties {
            party.see("the block", |line| line["kind"] == "block" && line["height"] == height);
        }
    };
    mined(&mut chain, 100, [&mut payer, &mut payer_lsp, &mut lsp]);

    payer.ask(&format!("connect {payer_lsp_id}@{payer_lsp_address}"));
    payer_lsp.ask(&format!("connect {lsp_id}@{lsp_address}"));
    payer.ask(&format!("open-channel {payer_lsp_id} 5000000"));
    payer_lsp.ask(&format!("open-channel {lsp_id} 8000000 announced"));
    for party in [&mut payer, &mut payer_lsp] {
        party.see("the funding", |line| line["kind"] == "broadcast" && line["error"].is_null());
    }
    mined(&mut chain, 6, [&mut payer, &mut payer_lsp, &mut lsp]);
    until("the LSP is announced", || lsp.ask("status")["announced"] == true);
    until("the payer knows both LSPs", || payer.ask("status")["announced_nodes"] == 2);

    let (mut recipient, _, _) = start("recipient");
    recipient.ask(&format!("connect {lsp_id}@{lsp_address}"));
    let early = recipient.ask_for_anything("offer");
    assert!(early["error"].as_str().unwrap().contains("`lease`"), "{early}");
    recipient.ask(&format!("lease {lsp_id}"));
    let paths = lsp.ask("paths alice")["paths"].as_str().unwrap().to_owned();
    recipient.ask(&format!("use-paths {paths}"));
    let offer = recipient.ask("offer")["offer"].as_str().unwrap().to_owned();
    assert_eq!(recipient.ask("leases")["leases"][0]["state"], "active");
    recipient.kill();

    payer.ask(&format!("pay {offer} 100000000"));
    lsp.see("mail", |line| line["kind"] == "mailbox" && line["state"] == "kept");
    let (mut recipient, _, _) = start("recipient");
    let claimed = recipient.see_htlc("claimed");
    assert_eq!(claimed["amount_msat"], 98_000_000);
    assert_eq!(claimed["skimmed_fee_msat"], 2_000_000);
    assert_eq!(payer.see_htlc("paid")["amount_msat"], 100_001_000);
    assert_eq!(recipient.ask("leases")["leases"][0]["state"], "consumed");
    let channels = &recipient.ask("balances")["channels"];
    assert_eq!(channels.as_array().unwrap().len(), 1);
}

#[test]
fn a_node_says_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM)
        .args(["node", "payer", "--data", folder.path().to_str().unwrap()])
        .args(["--chain", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cargo run -- chain"), "{error}");

    let mut chain = Party::start(&["chain", "--listen", "127.0.0.1:0"]);
    let address = chain.see("address", |line| line.get("chain").is_some());
    let mut payer = Party::node("payer", folder.path(), address["chain"].as_str().unwrap());
    for (command, advice) in [
        ("pay lno1 5", "not an offer"),
        ("lease 02", "no such command for this party"),
        ("connect nonsense", "NODE_ID@HOST:PORT"),
        ("open-channel", "no such command"),
    ] {
        let answer = payer.ask_for_anything(command);
        assert!(answer["error"].as_str().unwrap().contains(advice), "{command}: {answer}");
    }
    assert!(payer.ask("help").as_array().unwrap().contains(&json!("pay OFFER MSAT")));
}

/// Asks until it is so. What the other process gossips is not an event of this one.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it never happened that {what}");
        std::thread::yield_now();
    }
}
