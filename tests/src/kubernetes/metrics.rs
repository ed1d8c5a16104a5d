//! How long a sidecar waits for the plugin, as it counts it itself.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Cluster, free_port};

/// How long its metrics may take to be there after it was started.
const START: Duration = Duration::from_secs(180);

/// Where a sidecar tells its metrics.
pub struct Metrics {
    url: String,
}

/// How a method was called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calls {
    /// How often it was answered well.
    pub well: u64,
    /// How many seconds these took together.
    pub seconds: f64,
    /// How often it was not.
    pub otherwise: u64,
}

impl Calls {
    /// What the one call took that was made since, in seconds; none if it was called more than once, or not answered well.
    pub fn one_since(&self, before: &Calls) -> Option<f64> {
        let is_one = self.well == before.well + 1 && self.otherwise == before.otherwise;
        is_one.then_some(self.seconds - before.seconds)
    }
}

impl Cluster {
    /// Starts a sidecar anew, so that it tells its metrics.
    pub fn tell_metrics(&self, sidecar: &str) -> Result<Metrics> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let running = self.children.borrow_mut().remove(sidecar);
        let running = running.with_context(|| format!("{sidecar} does not run"))?;
        let mut arguments = running.arguments.clone();
        arguments.push(format!("--http-endpoint={address}"));
        let (program, environment) = (running.program.clone(), running.environment.clone());
        // It has to be gone before the next one can lead.
        drop(running);
        self.run_program(sidecar, program, arguments, environment)?;
        let metrics = Metrics {
            url: format!("http://{address}/metrics"),
        };
        self.wait(START, "metrics of a sidecar", |_| Ok(metrics.read().is_ok()))?;
        Ok(metrics)
    }
}

impl Metrics {
    fn read(&self) -> Result<String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--max-time", "10", &self.url]);
        let output = command.stdin(Stdio::null()).output().context("running curl")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).context("metrics")
    }

    /// How a method was called so far.
    pub fn of(&self, method: &str) -> Result<Calls> {
        Ok(sum(&self.read()?, method))
    }
}

fn sum(text: &str, method: &str) -> Calls {
    let of = |name: &str, well: bool| -> f64 {
        let about = text.lines().filter(|line| {
            line.starts_with(name)
                && line.contains(&format!("/{method}\""))
                && line.contains("grpc_status_code=\"OK\"") == well
        });
        about
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    Calls {
        well: of("csi_sidecar_operations_seconds_count", true) as u64,
        seconds: of("csi_sidecar_operations_seconds_sum", true),
        otherwise: of("csi_sidecar_operations_seconds_count", false) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As csi-provisioner 6.3.0 tells them.
    #[test]
    fn what_was_answered_well_is_summed_up_and_what_was_not_is_counted() {
        let text = "# TYPE csi_sidecar_operations_seconds histogram\n\
            csi_sidecar_operations_seconds_sum{driver_name=\"csi.cistern.storage\",grpc_status_code=\"OK\",method_name=\"/csi.v1.Controller/CreateVolume\",migrated=\"false\"} 1.5\n\
            csi_sidecar_operations_seconds_count{driver_name=\"csi.cistern.storage\",grpc_status_code=\"OK\",method_name=\"/csi.v1.Controller/CreateVolume\",migrated=\"false\"} 2\n\
            csi_sidecar_operations_seconds_count{driver_name=\"csi.cistern.storage\",grpc_status_code=\"Aborted\",method_name=\"/csi.v1.Controller/CreateVolume\",migrated=\"false\"} 7\n\
            csi_sidecar_operations_seconds_count{driver_name=\"csi.cistern.storage\",grpc_status_code=\"OK\",method_name=\"/csi.v1.Identity/Probe\",migrated=\"false\"} 1\n";
        let calls = sum(text, "CreateVolume");
        let (well, seconds, otherwise) = (2, 1.5, 7);
        assert_eq!(
            calls,
            Calls {
                well,
                seconds,
                otherwise
            }
        );
        let before = |well: u64, otherwise: u64| Calls {
            well,
            seconds: 1.0,
            otherwise,
        };
        assert_eq!(calls.one_since(&before(1, 7)), Some(0.5));
        assert_eq!(calls.one_since(&before(1, 6)), None, "it was asked a second time");
        assert_eq!(calls.one_since(&before(2, 7)), None, "it is not told yet");
    }
}
