//! `millpond demo`: a month of flights through a server on an empty directory, with live views.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use futures::SinkExt;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::client::{Result, connect};
use super::flights::{COPY_OPTIONS, FLIGHTS, RELATIONS, TABLES, VIEWS};
use crate::Compiled;
use crate::config::{Config, LISTEN};
use crate::run::start;

/// Simulated hours in one second, unless told otherwise.
const HOURS_PER_SECOND: f64 = 24.0;
/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(200);

struct Options {
    once: bool,
    hours_per_second: f64,
    data: Option<PathBuf>,
}

/// Runs the demo.
///
/// # Errors
/// Whatever the server says.
pub fn demo(args: &[String]) -> Compiled<'_, Result<()>> {
    Box::pin(show(args))
}

async fn show(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    let scratch = std::env::temp_dir().join(format!("millpond-demo-{}", std::process::id()));
    let directory = options.data.clone().unwrap_or_else(|| scratch.clone());
    let ended = run(&options, &directory).await;
    if options.data.is_none() {
        remove(&scratch);
    }
    ended
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options { once: false, hours_per_second: HOURS_PER_SECOND, data: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.as_slice().first()) {
            ("--once", _) => options.once = true,
            ("--speed", Some(value)) => {
                options.hours_per_second =
                    value.parse().map_err(|_| format!("--speed {value} is not a number"))?;
                args.next();
            }
            ("--data", Some(value)) => {
                options.data = Some(value.into());
                args.next();
            }
            (other, _) => {
                return Err(format!(
                    "the demo has no option \"{other}\"; there are --once, --speed N, --data DIR"
                )
                .into());
            }
        }
    }
    Ok(options)
}

#[allow(clippy::disallowed_methods, reason = "the demo's own directory, after the server is gone")]
fn remove(directory: &std::path::Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        tracing::debug!(%error, "could not remove the demo's directory");
    }
}

async fn run(options: &Options, directory: &std::path::Path) -> Result<()> {
    let directory = directory.display().to_string();
    let port = if options.once { "127.0.0.1:0" } else { LISTEN };
    let args = ["--data-dir", &directory, "--listen", port, "--http-listen", "off"].map(str::to_owned);
    let server = start(&Config::load(&args, |_| None)?).await?;
    let client = connect(&server.url()).await?;
    say(&format!(
        "A server runs on an empty directory. Look inside it with:\n\n    psql {}\n",
        server.url()
    ))?;
    for statement in RELATIONS {
        client.batch_execute(statement).await?;
    }
    for file in &TABLES {
        copy(&client, file.relation, &[&file.text()?]).await?;
    }
    for view in &VIEWS {
        client.batch_execute(view.create).await?;
    }
    let text = FLIGHTS.text()?;
    if options.once {
        copy(&client, FLIGHTS.relation, &[&text]).await?;
    } else {
        replay(&client, &text, options.hours_per_second).await?;
    }
    for view in &VIEWS {
        say(&format!("\n{}\n", view.title))?;
        say(&table(&client, view.show).await?)?;
    }
    if !options.once {
        say(&format!("\nThe server goes on until you press Ctrl-C:\n\n    psql {}\n", server.url()))?;
        tokio::signal::ctrl_c().await?;
    }
    drop(client);
    server.stop().await;
    Ok(())
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

async fn copy(client: &Client, relation: &str, pieces: &[&str]) -> Result<()> {
    let sink =
        client.copy_in::<_, bytes::Bytes>(&format!("COPY {relation} FROM STDIN {COPY_OPTIONS}")).await?;
    let mut sink = std::pin::pin!(sink);
    for piece in pieces {
        sink.send(bytes::Bytes::copy_from_slice(piece.as_bytes())).await?;
    }
    sink.as_mut().finish().await?;
    Ok(())
}

/// The simulated hour of a line: its day and hour, as scheduled.
fn hour_of(line: &str) -> f64 {
    let fields: Vec<&str> = line.split(',').collect();
    let number = |i: usize| fields.get(i).and_then(|f: &&str| f.parse::<f64>().ok()).unwrap_or(0.0);
    (number(2) - 1.0) * 24.0 + number(16)
}

/// Sends the flights as simulated time passes, showing the first view after each piece.
async fn replay(client: &Client, text: &str, hours_per_second: f64) -> Result<()> {
    let (header, body) = text.split_once('\n').unwrap_or((text, ""));
    let lines: Vec<&str> = body.lines().collect();
    let terminal = std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(FRAME);
    let (mut sent, mut frames) = (0usize, 0u32);
    let mut drawn = 0;
    while sent < lines.len() {
        ticks.tick().await;
        frames += 1;
        let now = f64::from(frames) * FRAME.as_secs_f64() * hours_per_second;
        let due = lines[sent..].iter().take_while(|line| hour_of(line) <= now).count();
        if due > 0 {
            let piece = format!("{header}\n{}\n", lines[sent..sent + due].join("\n"));
            copy(client, FLIGHTS.relation, &[&piece]).await?;
            sent += due;
        }
        if terminal || frames % 10 == 0 || sent == lines.len() {
            let picture = format!(
                "{}\n{}\n{}",
                VIEWS[0].title,
                table(client, VIEWS[0].show).await?,
                progress(sent, lines.len(), now)
            );
            let up = if terminal && drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { String::new() };
            drawn = picture.lines().count();
            say(&format!("{up}{picture}"))?;
        }
    }
    Ok(())
}

fn progress(sent: usize, all: usize, hours: f64) -> String {
    let width = 40;
    let done = sent * width / all.max(1);
    let day = (hours / 24.0).floor() + 1.0;
    format!(
        "[{}{}] {sent} of {all} flights, January {:.0}",
        "#".repeat(done),
        ".".repeat(width - done),
        day.min(31.0)
    )
}

/// The answer to a question as a table of text.
async fn table(client: &Client, query: &str) -> Result<String> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for message in client.simple_query(query).await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                rows.push(columns.iter().map(|c| c.name().to_owned()).collect());
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|i| row.get(i).unwrap_or("").to_owned()).collect());
            }
            _ => {}
        }
    }
    let columns = rows.first().map_or(0, Vec::len);
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        format!("  {}", cells.join("  ").trim_end())
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
    lines.insert(1.min(lines.len()), line(&rule));
    Ok(lines.join("\n"))
}
