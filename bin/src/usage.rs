//! Errors of the command line as one line, like all other failures: the argument, the reason, and
//! the allowed values.
//!
//! clap detects the errors. This module replaces clap's texts, which name types of Rust and give
//! misleading tips. The usage of the verb follows on a second line.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use crate::exit::Exit;
use crate::terminal::output;

/// Reports what clap returned instead of arguments. Help and version go to standard output; all
/// else is a usage error.
pub(crate) fn report(error: &Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is success. Other errors of standard output cannot be reported here.
            error.print().ok();
            return Exit::Done;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            error.print().ok();
            return Exit::Usage;
        }
        _ => {}
    }
    if is_help_of_help() {
        use clap::CommandFactory as _;
        crate::cli::Cli::command().print_help().ok();
        return Exit::Done;
    }
    output::error(&text(error, verb().as_deref()));
    if let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) {
        usage.to_string().lines().for_each(|line| output::message(line.trim_end()));
    }
    Exit::Usage
}

/// Whether the command is `kvctl help --help`: clap looks for a verb called `--help` then.
fn is_help_of_help() -> bool {
    let given: Vec<_> = std::env::args_os().skip(1).collect();
    matches!(given.as_slice(), [help, asked] if help == "help" && (asked == "--help" || asked == "-h"))
}

/// The verb of the command line, if there is such a verb.
fn verb() -> Option<String> {
    use clap::CommandFactory as _;
    let given = std::env::args().nth(1)?;
    crate::cli::Cli::command().find_subcommand(&given).map(|verb| verb.get_name().to_string())
}

fn text(error: &Error, verb: Option<&str>) -> String {
    let argument = argument(error, ContextKind::InvalidArg);
    let value = first(error, ContextKind::InvalidValue);
    let command = verb.map_or("kvctl".to_string(), |verb| format!("kvctl {verb}"));
    match error.kind() {
        ErrorKind::UnknownArgument => unknown(error, &argument, &command, verb),
        ErrorKind::InvalidSubcommand => {
            let given = first(error, ContextKind::InvalidSubcommand);
            let near = first(error, ContextKind::SuggestedSubcommand);
            format!("'{given}' is no verb of kvctl; {}'kvctl --help' lists the verbs", did_you_mean(&near))
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("{argument} needs a value{}", one_of(&all(error, ContextKind::ValidValue)))
        }
        ErrorKind::InvalidValue => {
            format!("{argument}: '{value}' does not fit{}", one_of(&all(error, ContextKind::ValidValue)))
        }
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("{argument}: '{value}' does not fit; {why}")
        }
        // A word before FILE that is no action, or an action after FILE.
        ErrorKind::ArgumentConflict if argument.is_empty() || verb == Some("tables") && !argument.starts_with('-') => {
            let given: Vec<String> = std::env::args().skip(2).collect();
            let name = verb.unwrap_or_default();
            format!("'{}' does not fit; there are '{command} FILE' and '{command} create FILE NAME'; 'kvctl help {name}' tells more", given.join(" "))
        }
        ErrorKind::ArgumentConflict => {
            let others: Vec<String> = all(error, ContextKind::PriorArg).iter().map(|other| plain(other)).collect();
            match others.iter().all(|other| *other == argument) {
                true => format!("{argument} was given twice; give it once"),
                false => format!("{argument} and {} do not go together; leave one of them out", others.join(", ")),
            }
        }
        ErrorKind::MissingRequiredArgument => {
            let missing: Vec<String> = all(error, ContextKind::InvalidArg).iter().map(|name| plain(name)).collect();
            format!("{} {} missing", missing.join(" and "), if missing.len() == 1 { "is" } else { "are" })
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8; give such bytes with --hex or --base64".to_string(),
        _ => {
            let said = error.to_string();
            said.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string()
        }
    }
}

fn unknown(error: &Error, argument: &str, command: &str, verb: Option<&str>) -> String {
    if !argument.starts_with('-') {
        return format!("'{argument}' is an argument too many for '{command}'; quote a key or value that has spaces");
    }
    let near = argument_of(&first(error, ContextKind::SuggestedArg));
    let help = verb.map_or("kvctl --help".to_string(), |verb| format!("kvctl help {verb}"));
    let text = format!("'{argument}' is no option of '{command}'; {}'{help}' lists them", did_you_mean(&near));
    match verb {
        Some("put" | "get" | "del") => format!("{text}; a key or value that starts with '-' goes after '--'"),
        _ => text,
    }
}

fn did_you_mean(near: &str) -> String {
    if near.is_empty() {
        return String::new();
    }
    format!("did you mean '{near}'? ")
}

fn one_of(values: &[String]) -> String {
    let values: Vec<&str> = values.iter().map(String::as_str).filter(|value| !value.is_empty()).collect();
    match values.is_empty() {
        true => String::new(),
        false => format!("; it is one of: {}", values.join(", ")),
    }
}

fn argument(error: &Error, kind: ContextKind) -> String {
    argument_of(&first(error, kind))
}

/// `--limit` for `--limit <N>`, `FILE` for `<FILE>`.
fn argument_of(shown: &str) -> String {
    match shown.starts_with("--") {
        true => shown.split([' ', '=']).next().unwrap_or_default().to_string(),
        false => plain(shown),
    }
}

fn plain(shown: &str) -> String {
    match shown.starts_with("--") {
        true => argument_of(shown),
        false => shown.trim_start_matches(['<', '[']).trim_end_matches(['>', ']', '.']).to_string(),
    }
}

fn first(error: &Error, kind: ContextKind) -> String {
    all(error, kind).into_iter().next().unwrap_or_default()
}

fn all(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}
