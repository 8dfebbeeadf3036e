//! `get` and `resolve`: in this process, or through the process that owns the cache.

use super::command::{self, Done, Request};
use super::engine::{Engine, open_store};
use super::{attach, ops, signal};
use crate::config::GetConfig;
use crate::model::{Failure, FailureKind, Prefetch};
use crate::run::progress::Progress;
use crate::run::status::StatusSource;
use crate::store::StoreError;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A command line waits this long for progress before it gives up.
pub(super) const TIMEOUT: Duration = Duration::from_secs(600);

/// Downloads a model.
pub async fn get(config: GetConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let (sender, receiver) = watch::channel((0, 0));
    let shown = tokio::spawn(show(receiver));
    let work = async {
        match open_store(&config.cache) {
            Ok(store) => {
                let engine = engine(store, &config, &shutdown).await?;
                command::get(&engine, &request(&config), sender).await
            }
            Err(StoreError::Owned { dir }) => attach::get(&dir, &request(&config), sender).await,
            Err(error) => Err(error.into()),
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = shutdown.cancelled() => Err(Failure::new(FailureKind::Internal, "interrupted: run the same command to go on")),
    };
    // The sender is gone with the work: the bar ends before the last line.
    let _ = shown.await;
    print(done?, config.json);
    Ok(())
}

/// Prints what a reference stands for.
pub async fn resolve(config: GetConfig) -> Result<(), Failure> {
    let done = match open_store(&config.cache) {
        Ok(store) => {
            let shutdown = CancellationToken::new();
            let engine = engine(store, &config, &shutdown).await?;
            let request = request(&config);
            command::resolve(&engine, &request)
                .await?
                .describe(&request.view)
        }
        Err(StoreError::Owned { dir }) => attach::resolve(&dir, &request(&config)).await?,
        Err(error) => return Err(error.into()),
    };
    print(done, config.json);
    Ok(())
}

async fn engine(
    store: crate::store::Store,
    config: &GetConfig,
    shutdown: &CancellationToken,
) -> Result<Engine, Failure> {
    let status = StatusSource {
        role: "get",
        store: Some(store.clone()),
        mounts: None,
    };
    if let Some(addr) = config.http {
        ops::serve(addr, status, ops::Ready::default(), shutdown.clone()).await?;
    }
    let engine = match &config.peer {
        None => Engine::local(store, &config.hubs, TIMEOUT)?,
        Some(peer) => {
            Engine::peer(
                store,
                peer,
                super::node::unique_id(),
                TIMEOUT,
                shutdown.clone(),
            )
            .await?
        }
    };
    Ok(engine)
}

fn request(config: &GetConfig) -> Request {
    Request {
        reference: config.reference.clone(),
        view: config.view.clone(),
        token: config.token.clone(),
        dir: std::path::absolute(&config.dir).unwrap_or_else(|_| config.dir.clone()),
        prefetch: Prefetch::Auto,
    }
}

pub fn print(done: Done, as_json: bool) {
    match as_json {
        true => println!("{}", done.json),
        false => println!("{}", done.text),
    }
}

/// Shows progress until its sender is gone.
async fn show(mut receiver: watch::Receiver<(u64, u64)>) {
    let mut progress = Progress::new();
    while receiver.changed().await.is_ok() {
        let (done, total) = *receiver.borrow_and_update();
        progress.update(done, total);
    }
    progress.finish();
}
