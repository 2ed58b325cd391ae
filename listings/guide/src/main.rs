//! `cargo run`: serves the book. Its subcommands build and check it, and play the flow or one party.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use guide::demo::{self, Refused, Summary};
use guide::{book, lab, record, serve, terminal, upgrade};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use regtest::{Chain, RpcAuth};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Async payments over LSPS2 JIT channels: a wallet that is offline and has no channel gets paid.
#[derive(Parser)]
#[command(name = "guide", version, args_conflicts_with_subcommands = true)]
struct Command {
    #[command(flatten)]
    book: BookArgs,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Serve the book on loopback and follow its sources (what happens without a subcommand).
    Book(BookArgs),
    /// Build the book once.
    Build(BuildArgs),
    /// Build the book and follow every link in it.
    Check(CheckArgs),
    /// Build a copy against another LDK version and list the listings, tests and claims that break.
    UpgradeCheck(UpgradeArgs),
    /// Play the whole story with four nodes and show where every msat went.
    Demo(DemoArgs),
    /// Play the scenarios that the book shows, and keep what the nodes did in `tests/recorded`.
    Record(RecordArgs),
    /// Play sequences that nobody thought of on many nodes, and prove after each step that no money is
    /// lost and nothing hangs.
    Lab(LabArgs),
    /// Run one party, with commands on standard input and JSON on standard output.
    Node(NodeArgs),
    /// Serve an embedded chain to `node` processes, on loopback.
    Chain(ChainArgs),
}

#[derive(Args)]
struct BookArgs {
    /// The port, on 127.0.0.1; 0 takes any free one. [default: the first free one from 3000]
    #[arg(long)]
    port: Option<u16>,
    /// Do not show the book in a browser.
    #[arg(long)]
    no_open: bool,
}

#[derive(Args)]
struct BuildArgs {
    /// The folder for the pages; it is emptied first. [default: `book`, at the top of the repository]
    #[arg(long)]
    dest: Option<PathBuf>,
}

#[derive(Args)]
struct CheckArgs {
    /// Follow the links to API documentation too, which is built for that.
    #[arg(long)]
    api: bool,
}

#[derive(Args)]
struct UpgradeArgs {
    /// The LDK version to try, as in 0.3.0.
    version: String,
}

#[derive(Args)]
struct DemoArgs {
    /// Whether the payer stays online, or leaves its HTLC with its LSP and goes offline too.
    #[arg(long, value_enum, default_value = "offline")]
    payer: Payer,
    /// Which side trusts: the LSP broadcasts the funding at once, or only when it has been paid.
    #[arg(long, value_enum, default_value = "client")]
    trust: Trust,
    /// What to pay, in msat.
    #[arg(long, default_value_t = 100_000_000)]
    amount: u64,
    /// The chain to play on. `bitcoind` starts the program that BITCOIND_EXE names.
    #[arg(long, value_enum, default_value = "embedded")]
    chain: DemoChain,
    /// Print everything that happens as JSON, one object a line; the last is a summary.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RecordArgs {
    /// Which scenarios; without a name, all of them.
    names: Vec<String>,
    /// Write nothing; tell how a fresh run differs from what is kept.
    #[arg(long)]
    check: bool,
    /// The chain to play on. `bitcoind` starts the program that BITCOIND_EXE names.
    #[arg(long, value_enum, default_value = "embedded")]
    chain: DemoChain,
}

#[derive(Args)]
struct LabArgs {
    /// Begin worlds for so many minutes. [default: 1, if --steps is not given]
    #[arg(long)]
    minutes: Option<u64>,
    /// Begin worlds until there are so many steps.
    #[arg(long)]
    steps: Option<usize>,
    /// The seed of the first world; the next world has the next one. [default: any]
    #[arg(long)]
    seed: Option<u64>,
    /// How many steps a world has.
    #[arg(long, default_value_t = 100)]
    length: usize,
    /// How many worlds are played at a time; LDK's delays make most of a world's time.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Where to keep the transcript and the logs of a world that breaks an invariant.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Play the steps of this file, as a failure has printed them, instead.
    #[arg(long, conflicts_with_all = ["minutes", "steps", "seed", "length", "jobs"])]
    replay: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Payer {
    Online,
    Offline,
}

#[derive(Clone, Copy, ValueEnum)]
enum Trust {
    /// The LSP trusts the client.
    Lsp,
    /// The client trusts the LSP.
    Client,
}

#[derive(Clone, Copy, ValueEnum)]
enum DemoChain {
    Embedded,
    Bitcoind,
}

#[derive(Args)]
struct NodeArgs {
    /// Which party.
    #[arg(value_enum)]
    role: terminal::RoleName,
    /// The party's folder; made if it does not exist.
    #[arg(long)]
    data: PathBuf,
    /// Where to take connections. Port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The chain, as HOST:PORT of a bitcoind on regtest or of `guide chain`.
    #[arg(long)]
    chain: String,
    /// The user and password of the chain's RPC, as USER:PASSWORD.
    #[arg(long, default_value = "guide:guide", conflicts_with = "cookie")]
    rpc_auth: String,
    /// The cookie file of the chain's RPC.
    #[arg(long)]
    cookie: Option<PathBuf>,
    /// For a payer: whether it stays online. For an LSP: see --trust.
    #[arg(long, value_enum, default_value = "offline")]
    payer: Payer,
    /// For an LSP: which side trusts.
    #[arg(long, value_enum, default_value = "client")]
    trust: Trust,
}

#[derive(Args)]
struct ChainArgs {
    /// Where to listen; loopback only.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 18_443)))]
    listen: SocketAddr,
    /// The user and password, as USER:PASSWORD.
    #[arg(long, default_value = "guide:guide")]
    rpc_auth: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Command::parse();
    let done = match command.what.unwrap_or(What::Book(command.book)) {
        What::Book(args) => serve_book(args).await,
        What::Build(args) => build_book(args),
        What::Check(args) => check_book(&args),
        What::UpgradeCheck(args) => return check_upgrade(&args.version),
        What::Demo(args) => return run_demo(args).await,
        What::Record(args) => run_record(args).await,
        What::Lab(args) => run_lab(args).await,
        What::Node(args) => run_node(args).await,
        What::Chain(args) => run_chain(args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve_book(args: BookArgs) -> Result<()> {
    let options = book::Options { port: args.port, open: !args.no_open };
    book::serve(&book::root()?, options).await
}

fn build_book(args: BuildArgs) -> Result<()> {
    let root = book::root()?;
    let built = book::build(&root, &args.dest.unwrap_or_else(|| root.join("book")))?;
    println!("The book is in {}, after {:.2?}.", built.dest.display(), built.took);
    Ok(())
}

fn check_book(args: &CheckArgs) -> Result<()> {
    let checked = book::check(&book::root()?, args.api)?;
    if !checked.problems.is_empty() {
        bail!("{} problems:\n{}", checked.problems.len(), checked.problems.join("\n"));
    }
    println!("{} pages, and every link in them leads somewhere.", checked.pages);
    Ok(())
}

/// 0: nothing breaks. 1: something does. 2: it could not be tried.
fn check_upgrade(version: &str) -> ExitCode {
    match book::root().and_then(|root| upgrade::check(&root, version)) {
        Ok(report) => {
            print!("{report}");
            if report.breaks() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// 0: paid. 1: not paid. 2: refused before anything started (as for a wrong option).
async fn run_demo(args: DemoArgs) -> ExitCode {
    let options = demo::Options {
        payer: payer_mode(args.payer),
        trust: trust_model(args.trust),
        amount_msat: args.amount,
        json: args.json,
    };
    let played = match demo_chain(args.chain).await {
        Ok(chain) => demo::run(&options, chain).await,
        Err(error) => Err(error),
    };
    let (summary, code) = match played {
        Ok(summary) => (summary, ExitCode::SUCCESS),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) => (Summary::unpaid("refused", refused.to_string()), ExitCode::from(2)),
            None => (Summary::unpaid("failed", format!("{error:#}")), ExitCode::FAILURE),
        },
    };
    match (&summary.error, args.json) {
        (_, true) => println!("{}", serde_json::to_string(&summary).expect("a summary is JSON")),
        (Some(error), false) => eprintln!("error: {error}"),
        (None, false) => print!("{}", demo::table(&summary)),
    }
    code
}

async fn run_record(args: RecordArgs) -> Result<()> {
    let root = book::root()?;
    let scenarios = match &args.names[..] {
        [] => record::scenarios(),
        names => names.iter().map(|name| record::find(name)).collect::<Result<_>>()?,
    };
    let mut differ = Vec::new();
    for scenario in &scenarios {
        let (name, chain) = (scenario.name, demo_chain(args.chain).await?);
        if args.check {
            let difference = record::check(&root, scenario, chain).await?;
            println!("{name}: {}", if difference.is_empty() { "the same" } else { "differs" });
            print!("{difference}");
            differ.extend((!difference.is_empty()).then_some(name));
        } else {
            match record::record(&root, scenario, chain).await? {
                record::Outcome::New => println!("{name}: new"),
                record::Outcome::Same => println!("{name}: the same; the file stays"),
                record::Outcome::Changed(how) => println!("{name}: written anew\n{how}"),
            }
        }
    }
    if !differ.is_empty() {
        bail!("{} differ: {}", differ.len(), differ.join(", "));
    }
    Ok(())
}

async fn run_lab(args: LabArgs) -> Result<()> {
    if let Some(file) = args.replay {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let sequence = text.parse().with_context(|| file.display().to_string())?;
        let played = lab::run::play(&std::env::temp_dir(), args.keep.as_deref(), &sequence).await;
        return match played {
            Ok(counts) => {
                println!("no invariant is broken: {counts}");
                Ok(())
            }
            Err(broken) => bail!("step {}: {}", broken.steps, broken.error),
        };
    }
    let minutes = args.minutes.or(args.steps.is_none().then_some(1));
    let options = lab::run::Options {
        seed: args.seed.unwrap_or_else(|| bitcoin::secp256k1::rand::random::<u32>().into()),
        length: args.length,
        time: minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        steps: args.steps,
        jobs: args.jobs,
        keep: args.keep,
    };
    println!("seed {}", options.seed);
    let counts = lab::run::run(&options).await?;
    println!("no invariant is broken: {counts}");
    Ok(())
}

async fn demo_chain(which: DemoChain) -> Result<Chain> {
    match which {
        DemoChain::Embedded => Ok(Chain::embedded()),
        DemoChain::Bitcoind => match std::env::var_os("BITCOIND_EXE") {
            Some(exe) => Chain::bitcoind_temporary(exe.as_ref()).await,
            None => Err(Refused(
                "no bitcoind: set BITCOIND_EXE to the program, or use --chain embedded".to_owned(),
            )
            .into()),
        },
    }
}

async fn run_node(args: NodeArgs) -> Result<()> {
    let auth = match args.cookie {
        Some(cookie) => RpcAuth::Cookie(cookie),
        None => user_and_password(&args.rpc_auth)?,
    };
    let chain = Chain::rpc(&args.chain, auth).await.with_context(|| {
        format!("no chain at {}: start one with `cargo run -- chain`, or a bitcoind", args.chain)
    })?;
    terminal::run(terminal::Options {
        role: args.role,
        data: args.data,
        listen: args.listen,
        chain,
        payer: payer_mode(args.payer),
        trust: trust_model(args.trust),
    })
    .await
}

async fn run_chain(args: ChainArgs) -> Result<()> {
    let RpcAuth::UserPass(user, password) = user_and_password(&args.rpc_auth)? else {
        bail!("--rpc-auth takes USER:PASSWORD");
    };
    serve::run(args.listen, user, password).await
}

fn user_and_password(both: &str) -> Result<RpcAuth> {
    let (user, password) = both.split_once(':').context("--rpc-auth takes USER:PASSWORD")?;
    Ok(RpcAuth::UserPass(user.to_owned(), password.to_owned()))
}

fn payer_mode(payer: Payer) -> PayerMode {
    match payer {
        Payer::Online => PayerMode::AlwaysOnline,
        Payer::Offline => PayerMode::OftenOffline,
    }
}

fn trust_model(trust: Trust) -> TrustModel {
    match trust {
        Trust::Lsp => TrustModel::LspTrustsClient,
        Trust::Client => TrustModel::ClientTrustsLsp,
    }
}
