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

    /// How often a method was called and answered well, and how many seconds that took together.
    pub fn of(&self, method: &str) -> Result<(u64, f64)> {
        Ok(sum(&self.read()?, method))
    }
}

fn sum(text: &str, method: &str) -> (u64, f64) {
    let of = |name: &str| -> f64 {
        let about = text.lines().filter(|line| {
            line.starts_with(name) && line.contains(&format!("/{method}\"")) && line.contains("grpc_status_code=\"OK\"")
        });
        about
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    (
        of("csi_sidecar_operations_seconds_count") as u64,
        of("csi_sidecar_operations_seconds_sum"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As csi-provisioner 6.3.0 tells them.
    #[test]
    fn what_was_answered_well_is_summed_up() {
        let text = "# TYPE csi_sidecar_operations_seconds histogram\n\
            csi_sidecar_operations_seconds_sum{driver_name=\"csi.cistern.storage\",grpc_status_code=\"OK\",method_name=\"/csi.v1.Controller/CreateVolume\",migrated=\"false\"} 1.5\n\
            csi_sidecar_operations_seconds_count{driver_name=\"csi.cistern.storage\",grpc_status_code=\"OK\",method_name=\"/csi.v1.Controller/CreateVolume\",migrated=\"false\"} 2\n\
            csi_sidecar_operations_seconds_count{driver_name=\"csi.cistern.storage\",grpc_status_code=\"Aborted\",method_name=\"/csi.v1.Controller/CreateVolume\",migrated=\"false\"} 7\n\
            csi_sidecar_operations_seconds_count{driver_name=\"csi.cistern.storage\",grpc_status_code=\"OK\",method_name=\"/csi.v1.Identity/Probe\",migrated=\"false\"} 1\n";
        assert_eq!(sum(text, "CreateVolume"), (2, 1.5));
    }
}
