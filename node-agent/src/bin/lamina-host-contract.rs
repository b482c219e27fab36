//! Tries on the machine it runs on, as root, whether systemd and the kernel do what the agent counts on. One line per
//! fact; exits with 1 if one does not hold. For test hosts: it creates and removes units of a topology `contract`.
//! With the argument `kernel` it also tries what reaches the kernel, which a container without controllers cannot show.

use std::process::ExitCode;

use lamina_node_agent::host::contract;
use lamina_node_agent::host::real::RealHost;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut host = RealHost::new("/", None);
    let mut all_hold = true;
    let mut answers = contract::on_the_bus(&mut host).await;
    if std::env::args().any(|argument| argument == "kernel") {
        answers.extend(contract::in_the_kernel(&mut host).await);
    }
    for (fact, answer) in answers {
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
