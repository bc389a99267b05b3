//! `isopath`: the operator's command.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod command;
mod controller;
mod failure;
mod socket;
mod table;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match command::run(&args) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("isopath: {}", failure.chain());
            failure.exit_code()
        }
    }
}
