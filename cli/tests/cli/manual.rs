//! The pages of the manual and what shells are told, as the program prints them.

#![expect(clippy::disallowed_methods, reason = "it looks for pages and for other programs")]

use crate::program::{golden, program, run};

fn verbs() -> Vec<String> {
    lamina_cli::manual::verbs()
}

#[test]
fn every_page_of_the_package_is_what_the_program_prints() {
    golden("../../debian/man/kubectl-lamina.1", &run(&["manual"]).output);
    for verb in verbs() {
        golden(&format!("../../debian/man/kubectl-lamina-{verb}.1"), &run(&["manual", &verb]).output);
    }
    let known = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/debian/man")).expect("a folder");
    assert_eq!(known.count(), verbs().len() + 1, "a page of a verb that is no more is left");
    let none = run(&["manual", "fly"]);
    assert_eq!((none.code, none.output.as_str()), (1, ""));
}

#[test]
fn bash_reads_its_script() {
    let script = run(&["completion", "bash"]).output;
    let words = "COMP_WORDS=(kubectl-lamina sta); COMP_CWORD=1; complete=$(complete -p kubectl-lamina); \
                 function=$(echo \"$complete\" | sed 's/.* -F //; s/ .*//'); \
                 $function kubectl-lamina sta kubectl-lamina; echo ${COMPREPLY[@]}";
    let told =
        std::process::Command::new("bash").args(["-c", &format!("{script}\n{words}")]).output().expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "status", "{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn kubectl_is_told_candidates_by_the_program_it_looks_for() {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_kubectl-lamina")).parent().expect("a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let shim = concat!(env!("CARGO_MANIFEST_DIR"), "/debian/kubectl_complete-lamina");
    let told = std::process::Command::new(shim).env("PATH", path).args(["verify", "--out"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.starts_with("--output\t") && text.ends_with(":4\n"), "{text}");
    let mut own = program();
    let own = own.args(["__complete", "sta"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&own.stdout).starts_with("status\t"));
}
