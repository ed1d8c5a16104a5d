//! Serving many volumes: a few at once, and none waits for one that does not come. Invariant: while a mount hangs in the
//! kernel its volume's name is held, so nobody else touches it; when it returns, its outcome is noted as any other's.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use cistern_model::{EventKind, PoolId, Severity, VolumeId};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pools::power_lost;

/// How often it is looked whether one takes too long.
const PACE: Duration = Duration::from_secs(1);

type Todo = Arc<Mutex<VecDeque<(PoolId, VolumeId)>>>;

enum News {
    Begun(VolumeId),
    Ended(VolumeId, Result<(), EngineError>),
}

impl Engine {
    /// Mounts volumes. One whose mount does not return in time (the recovery of its log, on a disk that hardly answers) is
    /// noted as not served, and goes on by itself. Fails only if the machine is gone.
    pub(crate) fn serve_all(
        &self,
        volumes: Vec<(PoolId, VolumeId)>,
        mounted: &HashSet<PathBuf>,
    ) -> Result<(), EngineError> {
        if volumes.is_empty() {
            return Ok(());
        }
        self.answer_those_who_wait()?;
        let mut left = volumes.len();
        let (todo, mounted) = (Arc::new(Mutex::new(VecDeque::from(volumes))), Arc::new(mounted.clone()));
        let (sender, news) = mpsc::channel();
        for _ in 0..self.0.config.mounts_at_once.clamp(1, left.max(1)) {
            self.serve_on_a_thread(&todo, &mounted, &sender);
        }
        let patience = self.0.config.mount_patience;
        let mut begun: Vec<(VolumeId, Instant)> = Vec::new();
        let mut asked = Instant::now();
        while left > 0 {
            match news.recv_timeout(PACE.min(patience)) {
                Ok(News::Begun(id)) => begun.push((id, Instant::now())),
                Ok(News::Ended(id, outcome)) => {
                    let known = begun.len();
                    begun.retain(|(other, _)| *other != id);
                    // One that was given up on has been counted.
                    left -= usize::from(begun.len() < known);
                    outcome?;
                    if left == 0 || asked.elapsed() >= PACE {
                        self.answer_those_who_wait()?;
                        asked = Instant::now();
                    }
                }
                Err(_) => {
                    let (late, rest) = begun.into_iter().partition(|(_, since)| since.elapsed() >= patience);
                    begun = rest;
                    let late: Vec<(VolumeId, Instant)> = late;
                    for (id, _) in late {
                        self.note_late(id);
                        left -= 1;
                        // In place of the one that hangs.
                        self.serve_on_a_thread(&todo, &mounted, &sender);
                    }
                }
            }
        }
        Ok(())
    }

    /// Clients that asked for what was not mounted then are answered now. Fails only if the machine is gone.
    pub(crate) fn answer_those_who_wait(&self) -> Result<(), EngineError> {
        let asked = self.0.host.exports.answer_waiting(&BTreeSet::new());
        match asked.doing(|| "answer clients that wait".to_owned()) {
            Err(error) if power_lost(&error) => Err(error),
            Err(error) => {
                tracing::warn!(error = error.problem().detail, "clients may wait for two minutes more");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn serve_on_a_thread(&self, todo: &Todo, mounted: &Arc<HashSet<PathBuf>>, sender: &mpsc::Sender<News>) {
        let (engine, todo, mounted, sender) = (self.clone(), todo.clone(), mounted.clone(), sender.clone());
        thread::spawn(move || {
            loop {
                let next = locked(&todo).pop_front();
                let Some((pool, id)) = next else { return };
                // Nobody listens any more once the machine is gone.
                if sender.send(News::Begun(id)).is_err() {
                    return;
                }
                let outcome = engine.serve(pool, id, &mounted);
                if sender.send(News::Ended(id, outcome)).is_err() {
                    // It was given up on, and its clients wait.
                    if let Err(error) = engine.answer_those_who_wait() {
                        tracing::warn!(
                            error = error.problem().detail,
                            "clients of a volume that came late wait"
                        );
                    }
                    return;
                }
            }
        });
    }

    fn note_late(&self, id: VolumeId) {
        // It has just come: whoever mounted it says how it is.
        if self.mounted(&self.path_of(id)).unwrap_or(false) {
            return;
        }
        let seconds = self.0.config.mount_patience.as_secs();
        let trouble = format!("its filesystem has not been mounted within {seconds} s; it is served when it is");
        let name = self.change_view(|view| {
            let volume = view.volume_mut(id)?;
            volume.trouble = Some(trouble.clone());
            Some(volume.tags.name.clone())
        });
        let Some(name) = name else { return };
        let message = format!("volume {name} is not served: {trouble}");
        let object = Some(id.to_string());
        self.record(EventKind::VolumeChanged, Severity::Error, object, None, message);
    }
}
