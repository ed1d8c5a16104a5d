//! cistern-oci: an executable in, an image's tar out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cistern_oci::{Name, pack};
use clap::Parser;

/// Packs an executable that is linked statically as a container image: a tar for `ctr images import`, `skopeo copy oci-archive:`
/// and `docker load`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The executable
    executable: PathBuf,
    /// The image's name; the manifests' one, if none is given
    #[arg(long, value_name = "NAME", default_value = cistern_kube::IMAGE)]
    name: Name,
    /// The tar; it is replaced if it is there
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let shown = arguments.executable.display();
    let executable = fs::read(&arguments.executable).with_context(|| format!("reading {shown}"))?;
    let packed = pack(&executable, &arguments.name).with_context(|| format!("{shown} cannot be packed"))?;
    let output = &arguments.output;
    write(output, &packed.tar).with_context(|| format!("writing {}", output.display()))?;
    println!(
        "{}: {} for linux/{}, {:.1} MiB, {}",
        output.display(),
        arguments.name.full(),
        packed.architecture.as_str(),
        packed.tar.len() as f64 / f64::from(1 << 20),
        packed.digest
    );
    Ok(())
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    fs::write(&partial, bytes)?;
    fs::rename(partial, path)
}
