//! The program: parse, set up logging, run one role, turn its failure into a line and an exit code.

use model_p2p::cli::{self, Command};
use model_p2p::model::Failure;
use model_p2p::{memory, run, telemetry};
use std::process::ExitCode;
use std::time::Duration;

/// How long background work may take to notice that it has ended.
const END_MAX: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    memory::settle();
    let cli = cli::parse();
    telemetry::init(cli.log_format);
    // Before there are threads: the supervisor has one.
    if let Command::Supervise(args) = &cli.command {
        return done(run::supervise(&args.command));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let end = runtime.block_on(dispatch(cli.command));
    // The last line on stderr says what failed: nothing in the background may speak after it.
    runtime.shutdown_timeout(END_MAX);
    done(end)
}

fn done(end: Result<ExitCode, Failure>) -> ExitCode {
    match end {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            cli::exit::code(failure.kind)
        }
    }
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Supervise(args) => return run::supervise(&args.command),
        Command::Mount(args) => return run::mount(args.config()?).await,
        Command::Unmount(args) => run::unmount(&args.dir),
        Command::Get(args) => run::get(args.config()?).await,
        Command::Resolve(args) => run::resolve(args.config()?).await,
        Command::Status(args) => {
            let (cache, json) = args.config()?;
            run::status(cache, json).await
        }
        Command::Node(args) => run::node(args.config()?).await,
        Command::Seed(args) => run::seed(args.config()?).await,
        Command::Controller(args) => run::controller(args.config()?).await,
        Command::Bootstrap(args) => run::bootstrap(args.config()?).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}
