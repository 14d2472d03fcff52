//! What to measure, from the command line.

use crate::{
    peer::{self, Peer},
    row::{ROWS, Row},
};
use std::{path::PathBuf, time::Duration};

/// By what it is chosen.
const ACCURACY: &str = "accuracy";

/// What to measure.
pub struct Options {
    /// Which rows.
    pub rows: Vec<&'static Row>,
    /// Whether to see how exactly a limit is kept while what it rests on fails: not a row, and not measured unless it is named.
    pub accuracy: bool,
    /// Which peers.
    pub peers: Vec<Box<dyn Peer>>,
    /// How often each peer is measured.
    pub rounds: usize,
    /// How long each time.
    pub window: Duration,
    /// Where the gateways run.
    pub gateway_core: String,
    /// Where load and upstream run.
    pub load_core: String,
    /// Where every round is written down.
    pub out: PathBuf,
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// A text for the user: what is wrong, or the help that was asked for.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            rows: ROWS.iter().collect(),
            accuracy: false,
            peers: peer::all(),
            rounds: 5,
            window: Duration::from_millis(1200),
            gateway_core: "0".to_owned(),
            load_core: "1".to_owned(),
            out: PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/peers.json")),
        };
        let mut arguments = arguments.iter().filter(|argument| *argument != "--bench");
        while let Some(argument) = arguments.next() {
            if argument == "--help" || argument == "-h" {
                return Err(help());
            }
            let value = arguments.next().ok_or_else(|| format!("{argument} wants a value\n\n{}", help()))?;
            let bad = || format!("{argument} {value}: not understood\n\n{}", help());
            match argument.as_str() {
                "--rows" => {
                    options.accuracy = value.split(',').any(|name| name == ACCURACY);
                    options.rows = value
                        .split(',')
                        .filter(|name| *name != ACCURACY)
                        .map(|name| ROWS.iter().find(|row| row.name == name).ok_or_else(bad))
                        .collect::<Result<_, _>>()?;
                }
                "--peers" => {
                    let mut all = peer::all();
                    let mut chosen = Vec::new();
                    for name in value.split(',') {
                        let place = all.iter().position(|peer| peer.name() == name).ok_or_else(bad)?;
                        chosen.push(all.swap_remove(place));
                    }
                    options.peers = chosen;
                }
                "--rounds" => options.rounds = value.parse().ok().filter(|rounds| *rounds > 0).ok_or_else(bad)?,
                "--seconds" => {
                    let seconds: f64 = value.parse().map_err(|_| bad())?;
                    options.window = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
                }
                "--cores" => {
                    let (gateway, load) = value.split_once(',').ok_or_else(bad)?;
                    (options.gateway_core, options.load_core) = (gateway.to_owned(), load.to_owned());
                }
                "--out" => options.out = PathBuf::from(value),
                _ => return Err(bad()),
            }
        }
        Ok(options)
    }
}

fn help() -> String {
    let rows: Vec<String> = ROWS.iter().map(|row| format!("    {:<13} {}", row.name, row.title)).collect();
    let peers: Vec<String> = peer::all().iter().map(|peer| format!("    {}", peer.name())).collect();
    format!(
        "cargo bench -p tests --bench peers -- [OPTIONS]\n\n\
         \x20 --rows A,B      only these rows\n\
         \x20 --peers A,B     only these peers\n\
         \x20 --rounds N      how often each peer is measured in a row (5)\n\
         \x20 --seconds S     how long each time (1.2)\n\
         \x20 --cores G,L     where gateways run, and where load and upstream (0,1)\n\
         \x20 --out FILE      where every round is written to, as JSON\n\n\
         Rows:\n{}\n    {ACCURACY:<13} One limit over three gateways while its store fails (half a minute each; only if named)\n\nPeers:\n{}\n\n\
         QUORATE_BIN_DIR names the folder of quorate and quoratectl (built in the profile of this program where it is not set), \
         PEERS_VENV the Python environment that install.sh put Envoy, Traefik and HAProxy into.",
        rows.join("\n"),
        peers.join("\n")
    )
}
