//! Writes the CRD manifests into the chart that carries them, or into the folder named as the only argument.

#![expect(clippy::disallowed_methods, reason = "it writes the manifests")]

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let charts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/lamina-crds/templates");
    let folder = env::args_os().nth(1).map_or(charts, PathBuf::from);
    fs::create_dir_all(&folder)?;
    for (name, text) in lamina_crds::manifests::manifests() {
        fs::write(folder.join(name), text)?;
        println!("{}", folder.join(name).display());
    }
    Ok(())
}
