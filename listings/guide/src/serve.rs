//! `chain`: an embedded chain for node processes, with `mine` on standard input.

use anyhow::{Result, bail};
use regtest::{Chain, EmbeddedChain, serve};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::world::nobody;

const HELP: &str = "mine BLOCKS | height | mempool | help | quit";

/// Serves until standard input ends or says `quit`.
pub async fn run(listen: SocketAddr, user: String, password: String) -> Result<()> {
    let embedded = EmbeddedChain::new();
    let chain = Chain::Embedded(embedded.clone());
    let (address, serving) = serve(embedded, listen, user, password).await?;
    let serving = tokio::spawn(serving);
    println!("{}", json!({ "chain": address.to_string(), "commands": HELP }));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match answer(&chain, &line).await {
            Ok(Some(value)) => println!("{value}"),
            Ok(None) => break,
            Err(error) => println!("{}", json!({ "error": format!("{error:#}") })),
        }
    }
    serving.abort();
    Ok(())
}

async fn answer(chain: &Chain, line: &str) -> Result<Option<Value>> {
    let words: Vec<_> = line.split_whitespace().collect();
    Ok(Some(match words[..] {
        ["mine", blocks] => {
            chain.mine(blocks.parse()?, &nobody()).await?;
            json!({ "height": chain.height().await? })
        }
        ["height"] => json!({ "height": chain.height().await? }),
        ["mempool"] => json!({ "mempool": chain.mempool().await? }),
        [] | ["help"] => json!({ "commands": HELP }),
        ["quit"] => return Ok(None),
        _ => bail!("unknown command: {HELP}"),
    }))
}
