//! Logs: to stderr, one line an event, chosen by RUST_LOG.

use crate::config::Format;
use tracing_subscriber::EnvFilter;

/// Starts logging for the process. Libraries speak only when something is wrong.
pub fn init(format: Format) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,model_p2p=info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(std::io::stderr);
    let started = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().try_init(),
    };
    if let Err(error) = started {
        eprintln!("no logs: {error}");
    }
}
