//! The `millpond` program: arguments to configuration to a running server.

use std::io::Write;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::{Config, start, usage};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Planners recurse over a statement's tree; its depth is limited, and this is enough for the limit.
const STACK_BYTES: usize = 32 << 20;

/// Memory of what is gone is used again, whoever has let it go (docs/decisions/0038); state that is too large for it
/// lies in a file (0041).
#[global_allocator]
static ALLOCATOR: spill::Allocator = spill::Allocator;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = args.split_first().map_or(("help", &[][..]), |(verb, rest)| (verb.as_str(), rest));
    let result = match verb {
        "serve" => serve(rest),
        "check" => server::check(rest).map(|report| say(&report)),
        "backup" => runtime().and_then(|on| on.block_on(server::backup(rest))).map(|report| say(&report)),
        "restore" => server::restore(rest).map(|report| say(&report)),
        "demo" => run(server::demo(rest)),
        "bench" => run(server::bench(rest)),
        "help" | "--help" | "-h" => {
            say(&usage());
            Ok(())
        }
        "--version" | "version" => {
            say(concat!("millpond ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        other => Err(format!("there is no command \"{other}\"; try: millpond help").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when stderr is gone too.
            let _ = writeln!(std::io::stderr(), "millpond: {error}");
            ExitCode::FAILURE
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn say(text: &str) {
    let mut out = std::io::stdout();
    // Whoever asked has gone.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn runtime() -> Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // More threads than cores: a long question in one must not keep the others from sockets.
    Ok(Builder::new_multi_thread()
        .worker_threads(cores * 4)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()?)
}

fn run(task: impl Future<Output = Result<()>>) -> Result<()> {
    runtime()?.block_on(task)
}

fn serve(args: &[String]) -> Result<()> {
    let config = Config::load(args, |name| std::env::var(name).ok())?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    allow_open_files();
    run(async move {
        let running = start(&config).await?;
        tracing::info!(http = ?running.http_address, "serving");
        say(&format!("ready: {}", running.url()));
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        running.stop().await;
        Ok(())
    })
}

/// Lets this process open as many files as the system allows it: a client and a partition take one each, and the
/// usual limit of 1024 is made for programs that call `select`.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, allowed = limit.current, "could not raise the number of open files");
    }
}
