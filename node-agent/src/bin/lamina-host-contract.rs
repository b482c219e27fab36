//! Tries on the machine it runs on, as root, whether systemd and the kernel do what the agent counts on. One line per
//! fact; exits with 1 if one does not hold. For test hosts: it creates and removes units of a topology `contract`.

use std::process::ExitCode;

use lamina_node_agent::host::contract;
use lamina_node_agent::host::real::RealHost;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut host = RealHost::new("/", None);
    let mut all_hold = true;
    for (fact, answer) in contract::run(&mut host).await {
        match answer {
            Ok(()) => println!("holds   {fact}"),
            Err(broken) => {
                all_hold = false;
                println!("BROKEN  {fact}: {broken}");
            }
        }
    }
    if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
