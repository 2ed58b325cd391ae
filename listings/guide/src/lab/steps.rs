//! What a run of the lab is made of: steps that a person can read, paste and replay.

use anyhow::{Context, Result, anyhow, bail, ensure};
use lsps2_async::lease::TrustModel;
use node::faults::{Fault, points};
use node::lsp::Conduct;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::fmt::{self, Display};
use std::str::FromStr;

/// How many payers there are: one that is often offline, one that never leaves.
pub const PAYERS: usize = 2;
/// How many recipients there are.
pub const RECIPIENTS: usize = 2;

/// A party of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// A payer; the first may leave while its payment waits.
    Payer(usize),
    /// The payers' LSP.
    PayerLsp,
    /// The recipients' LSP.
    Lsp,
    /// A recipient.
    Recipient(usize),
}

impl Who {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let payers = (0..PAYERS).map(Self::Payer);
        payers.chain([Self::PayerLsp, Self::Lsp]).chain((0..RECIPIENTS).map(Self::Recipient))
    }

    /// The name in the transcript.
    pub fn name(self) -> &'static str {
        match self {
            Self::Payer(0) => "payer",
            Self::Payer(_) => "payer-2",
            Self::PayerLsp => "payer-lsp",
            Self::Lsp => "lsp",
            Self::Recipient(0) => "recipient",
            Self::Recipient(_) => "recipient-2",
        }
    }
}

impl FromStr for Who {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::all()
            .find(|who| who.name() == name)
            .with_context(|| format!("nobody is called {name}"))
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A payer that is online pays a recipient's offer.
    Pay {
        /// Which payer.
        payer: usize,
        /// Which recipient.
        recipient: usize,
        /// How much.
        msat: u64,
        /// Whether it pays the oldest offer of that recipient, not the newest.
        old: bool,
        /// Whether the next step waits until the payment is over, or has to wait for somebody.
        wait: bool,
    },
    /// A payer or a recipient leaves.
    Away(Who),
    /// It comes back.
    Back {
        /// Who.
        who: Who,
        /// Whether the next step waits until what waited for it is over.
        wait: bool,
    },
    /// A link breaks; it is there again at once.
    Drop(Who),
    /// A node stops in an orderly way, if it is not away already, and starts again.
    Restart(Who),
    /// A node ends without a last word, and starts again.
    Crash(Who),
    /// A node that is online will crash at this write or this place in its code, and start again.
    Fault {
        /// Who.
        who: Who,
        /// Where.
        fault: Fault,
    },
    /// So many blocks are mined.
    Mine(u32),
    /// So many blocks are replaced, with one more on top.
    Reorg(u32),
    /// LDK's minute passes at everybody who is online.
    Tick,
    /// All leases run out.
    Expire,
    /// A recipient that is online buys a lease.
    Renew(usize),
    /// The recipients' LSP restarts and behaves so from now on.
    Conduct(Conduct),
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_once = |wait: bool| if wait { "" } else { " at-once" };
        match self {
            Self::Pay { payer, recipient, msat, old, wait } => {
                let (from, to) = (Who::Payer(*payer).name(), Who::Recipient(*recipient).name());
                let old = if *old { " old" } else { "" };
                write!(f, "pay {from} {to} {msat}{old}{}", at_once(*wait))
            }
            Self::Away(who) => write!(f, "away {}", who.name()),
            Self::Back { who, wait } => write!(f, "back {}{}", who.name(), at_once(*wait)),
            Self::Drop(who) => write!(f, "drop {}", who.name()),
            Self::Restart(who) => write!(f, "restart {}", who.name()),
            Self::Crash(who) => write!(f, "crash {}", who.name()),
            Self::Fault { who, fault } => write!(f, "fault {} {fault}", who.name()),
            Self::Mine(blocks) => write!(f, "mine {blocks}"),
            Self::Reorg(blocks) => write!(f, "reorg {blocks}"),
            Self::Tick => write!(f, "tick"),
            Self::Expire => write!(f, "expire"),
            Self::Renew(recipient) => write!(f, "renew {}", Who::Recipient(*recipient).name()),
            Self::Conduct(Conduct::Honest) => write!(f, "honest"),
            Self::Conduct(Conduct::SkimsAgain) => write!(f, "skims-again"),
            Self::Conduct(Conduct::OpensNothing) => write!(f, "opens-nothing"),
            Self::Conduct(Conduct::SkimsMore(msat)) => write!(f, "skims-more {msat}"),
            Self::Conduct(Conduct::SkimsWithoutLease(msat)) => {
                write!(f, "skims-without-lease {msat}")
            }
        }
    }
}

impl FromStr for Step {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words: Vec<_> = line.split_whitespace().collect();
        let mut flag = |name: &str| {
            let before = words.len();
            words.retain(|word| *word != name);
            words.len() < before
        };
        let (wait, old) = (!flag("at-once"), flag("old"));
        let payer = |name: &str| match name.parse()? {
            Who::Payer(payer) => Ok(payer),
            _ => Err(anyhow!("{name} is no payer")),
        };
        let recipient = |name: &str| match name.parse()? {
            Who::Recipient(recipient) => Ok(recipient),
            _ => Err(anyhow!("{name} is no recipient")),
        };
        Ok(match words[..] {
            ["pay", from, to, msat] => {
                let (payer, recipient, msat) = (payer(from)?, recipient(to)?, msat.parse()?);
                Self::Pay { payer, recipient, msat, old, wait }
            }
            ["away", who] => Self::Away(who.parse()?),
            ["back", who] => Self::Back { who: who.parse()?, wait },
            ["drop", who] => Self::Drop(who.parse()?),
            ["restart", who] => Self::Restart(who.parse()?),
            ["crash", who] => Self::Crash(who.parse()?),
            ["fault", who, ref fault @ ..] => {
                Self::Fault { who: who.parse()?, fault: fault.join(" ").parse()? }
            }
            ["mine", blocks] => Self::Mine(blocks.parse()?),
            ["reorg", blocks] => Self::Reorg(blocks.parse()?),
            ["tick"] => Self::Tick,
            ["expire"] => Self::Expire,
            ["renew", who] => Self::Renew(recipient(who)?),
            ["honest"] => Self::Conduct(Conduct::Honest),
            ["skims-again"] => Self::Conduct(Conduct::SkimsAgain),
            ["opens-nothing"] => Self::Conduct(Conduct::OpensNothing),
            ["skims-more", msat] => Self::Conduct(Conduct::SkimsMore(msat.parse()?)),
            ["skims-without-lease", msat] => {
                Self::Conduct(Conduct::SkimsWithoutLease(msat.parse()?))
            }
            _ => bail!("no step of the lab: {line}"),
        })
    }
}

/// What is played in one world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Who trusts.
    pub trust: TrustModel,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trust = match self.trust {
            TrustModel::LspTrustsClient => "lsp",
            TrustModel::ClientTrustsLsp => "client",
        };
        writeln!(f, "trusts {trust}")?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl FromStr for Sequence {
    type Err = anyhow::Error;

    /// One step a line, after a line that says who trusts; `#` begins a comment.
    fn from_str(text: &str) -> Result<Self> {
        let bare = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let mut lines = bare.filter(|line| !line.is_empty());
        let trust = match lines.next() {
            Some("trusts lsp") => TrustModel::LspTrustsClient,
            Some("trusts client") => TrustModel::ClientTrustsLsp,
            first => bail!("the first line is `trusts lsp` or `trusts client`, not {first:?}"),
        };
        let steps = lines.map(str::parse).collect::<Result<Vec<_>>>()?;
        ensure!(!steps.is_empty(), "no steps");
        Ok(Self { trust, steps })
    }
}

impl Sequence {
    /// The sequence of this seed, of that many steps.
    pub fn drawn(seed: u64, steps: usize) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        sequence(steps).new_tree(&mut runner).expect("it filters nothing").current()
    }
}

/// A strategy for sequences of that many steps.
pub fn sequence(steps: usize) -> impl Strategy<Value = Sequence> {
    let trust = prop_oneof![Just(TrustModel::LspTrustsClient), Just(TrustModel::ClientTrustsLsp)];
    (trust, vec(step(), steps)).prop_map(|(trust, steps)| Sequence { trust, steps })
}

fn step() -> impl Strategy<Value = Step> {
    let visitor = || {
        let recipient = (0..RECIPIENTS).prop_map(Who::Recipient);
        prop_oneof![1 => Just(Who::Payer(0)), 3 => recipient]
    };
    let anybody = || proptest::sample::select(Who::all().collect::<Vec<_>>());
    let conduct = prop_oneof![
        2 => Just(Conduct::Honest),
        1 => Just(Conduct::SkimsAgain),
        1 => Just(Conduct::OpensNothing),
        1 => (1..5_000_000u64).prop_map(Conduct::SkimsMore),
    ];
    prop_oneof![
        16 => pay(),
        6 => visitor().prop_map(Step::Away),
        9 => (visitor(), any::<bool>()).prop_map(|(who, wait)| Step::Back { who, wait }),
        3 => anybody().prop_map(Step::Drop),
        3 => anybody().prop_map(Step::Restart),
        3 => anybody().prop_map(Step::Crash),
        4 => (anybody(), fault()).prop_map(|(who, fault)| Step::Fault { who, fault }),
        4 => (1..=60u32).prop_map(Step::Mine),
        1 => (1..=3u32).prop_map(Step::Reorg),
        1 => Just(Step::Tick),
        1 => Just(Step::Expire),
        2 => (0..RECIPIENTS).prop_map(Step::Renew),
        1 => conduct.prop_map(Step::Conduct),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let point = proptest::sample::select(&points::ALL[..]);
    prop_oneof![
        2 => (1..40u32).prop_map(Fault::before_write),
        2 => (1..40u32).prop_map(Fault::after_write),
        1 => point.prop_map(Fault::at),
    ]
}

/// Mostly what an LSP takes, and everything outside of it too.
fn pay() -> impl Strategy<Value = Step> {
    let msat = prop_oneof![
        8 => 10_000_000..200_000_000u64,
        2 => 200_000_000..600_000_000u64,
        1 => Just(10_000_000u64),
        1 => 1..10_000_000u64,
        1 => 600_000_000..3_000_000_000u64,
    ];
    let (payer, recipient) = (0..PAYERS, 0..RECIPIENTS);
    let flags = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.7));
    (payer, recipient, msat, flags).prop_map(|(payer, recipient, msat, (old, wait))| Step::Pay {
        payer,
        recipient,
        msat,
        old,
        wait,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        /// What a failure prints can be pasted back.
        #[test]
        fn a_sequence_reads_as_it_is_written(sequence in sequence(20)) {
            prop_assert_eq!(sequence.to_string().parse::<Sequence>().unwrap(), sequence);
        }
    }

    #[test]
    fn a_seed_always_draws_the_same() {
        assert_eq!(Sequence::drawn(7, 50), Sequence::drawn(7, 50));
        assert_ne!(Sequence::drawn(7, 50), Sequence::drawn(8, 50));
        assert_eq!(Sequence::drawn(7, 50).steps.len(), 50);
    }

    #[test]
    fn the_pages_example_can_be_played() {
        let example = include_str!("../../../../tests/recorded/lab-sequence.txt");
        assert_eq!(example.parse::<Sequence>().unwrap().to_string(), example);
    }

    #[test]
    fn what_is_no_step_is_named() {
        let told = |text: &str| text.parse::<Sequence>().unwrap_err().to_string();
        assert_eq!(told("trusts lsp\nfly payer"), "no step of the lab: fly payer");
        assert_eq!(told("trusts lsp\naway bob"), "nobody is called bob");
        assert!(told("mine 3").starts_with("the first line is"));
        let commented = "# found by chance\ntrusts client\nmine 3 # blocks\n\n";
        assert_eq!(commented.parse::<Sequence>().unwrap().steps, [Step::Mine(3)]);
    }
}
