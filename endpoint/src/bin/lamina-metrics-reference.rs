//! Writes `docs/reference/metrics.md` out of the catalog.

#![expect(clippy::disallowed_methods, reason = "it writes the page")]

fn main() -> std::io::Result<()> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md");
    std::fs::write(page, lamina_endpoint::reference::reference())?;
    println!("{page}");
    Ok(())
}
