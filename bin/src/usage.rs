//! Reports errors of the command line like all other failures, on one line: the argument, the
//! reason, and the allowed values. The usage of the verb follows.
//!
//! clap detects the errors. This module replaces clap's texts, which name types of Rust and give
//! misleading tips.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use crate::exit::{best_effort, Exit};
use crate::terminal::output;

/// Prints the help or version that the user asked for to standard output, or a usage error to
/// standard error. clap returns all of them as errors.
pub(crate) fn report(error: &Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is success. Other errors of standard output cannot be reported here.
            best_effort(error.print());
            return Exit::Done;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            best_effort(error.print());
            return Exit::Usage;
        }
        _ => {}
    }
    if is_help_of_help() {
        use clap::CommandFactory as _;
        best_effort(crate::cli::Cli::command().print_help());
        return Exit::Done;
    }
    output::error(&text(error, verb().as_deref()));
    if let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) {
        usage.to_string().lines().for_each(|line| output::message(line.trim_end()));
    }
    Exit::Usage
}

/// Whether the command is `kvctl help --help`, for which clap looks up a verb named `--help`.
fn is_help_of_help() -> bool {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    matches!(arguments.as_slice(), [verb, option] if verb == "help" && (option == "--help" || option == "-h"))
}

/// The verb of the command line, if kvctl has it.
fn verb() -> Option<String> {
    use clap::CommandFactory as _;
    let name = std::env::args().nth(1)?;
    crate::cli::Cli::command().find_subcommand(&name).map(|verb| verb.get_name().to_string())
}

/// The text of a usage error.
fn text(error: &Error, verb: Option<&str>) -> String {
    let argument = argument_of(&first_value(error, ContextKind::InvalidArg));
    let value = first_value(error, ContextKind::InvalidValue);
    let command = verb.map_or("kvctl".to_string(), |verb| format!("kvctl {verb}"));
    match error.kind() {
        ErrorKind::UnknownArgument => unknown(error, &argument, &command, verb),
        ErrorKind::InvalidSubcommand => {
            let name = first_value(error, ContextKind::InvalidSubcommand);
            let similar = first_value(error, ContextKind::SuggestedSubcommand);
            format!("'{name}' is not a verb of kvctl; {}'kvctl --help' lists the verbs", did_you_mean(&similar))
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("{argument} needs a value{}", one_of(&values(error, ContextKind::ValidValue)))
        }
        ErrorKind::InvalidValue => {
            format!("{argument}: '{value}' is not valid{}", one_of(&values(error, ContextKind::ValidValue)))
        }
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("{argument}: '{value}' is not valid; {reason}")
        }
        // `tables` with an unknown action before FILE, or with an action after FILE.
        ErrorKind::ArgumentConflict if argument.is_empty() || verb == Some("tables") && !argument.starts_with('-') => {
            let arguments: Vec<String> = std::env::args().skip(2).collect();
            let name = verb.unwrap_or_default();
            format!(
                "'{}' is not valid; the forms are '{command} FILE' and '{command} create|drop|rename|clear FILE NAME'; see 'kvctl help {name}'",
                arguments.join(" ")
            )
        }
        ErrorKind::ArgumentConflict => {
            let others: Vec<String> =
                values(error, ContextKind::PriorArg).iter().map(|other| argument_of(other)).collect();
            match others.iter().all(|other| *other == argument) {
                true => format!("{argument} was given twice; give it once"),
                false => format!("{argument} and {} cannot be used together; leave one of them out", others.join(", ")),
            }
        }
        ErrorKind::MissingRequiredArgument => {
            let missing: Vec<String> =
                values(error, ContextKind::InvalidArg).iter().map(|name| argument_of(name)).collect();
            format!("{} {} missing", missing.join(" and "), if missing.len() == 1 { "is" } else { "are" })
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8; give such bytes with --hex or --base64".to_string(),
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string()
        }
    }
}

/// The text for an argument that the verb does not take.
fn unknown(error: &Error, argument: &str, command: &str, verb: Option<&str>) -> String {
    if !argument.starts_with('-') {
        return format!("'{argument}' is one argument too many for '{command}'; quote a key or value that has spaces");
    }
    let similar = argument_of(&first_value(error, ContextKind::SuggestedArg));
    let help = verb.map_or("kvctl --help".to_string(), |verb| format!("kvctl help {verb}"));
    let text = format!("'{argument}' is not an option of '{command}'; {}'{help}' lists them", did_you_mean(&similar));
    match verb {
        Some("put" | "get" | "del" | "incr" | "cas") => {
            format!("{text}; a key or value that starts with '-' goes after '--'")
        }
        _ => text,
    }
}

fn did_you_mean(similar: &str) -> String {
    if similar.is_empty() {
        return String::new();
    }
    format!("did you mean '{similar}'? ")
}

fn one_of(values: &[String]) -> String {
    let values: Vec<&str> = values.iter().map(String::as_str).filter(|value| !value.is_empty()).collect();
    match values.is_empty() {
        true => String::new(),
        false => format!("; give one of: {}", values.join(", ")),
    }
}

/// The name of an argument without clap's notation: `--limit` of `--limit <N>`, `FILE` of `<FILE>`.
fn argument_of(shown: &str) -> String {
    match shown.starts_with("--") {
        true => shown.split([' ', '=']).next().unwrap_or_default().to_string(),
        false => shown.trim_start_matches(['<', '[']).trim_end_matches(['>', ']', '.']).to_string(),
    }
}

fn first_value(error: &Error, kind: ContextKind) -> String {
    values(error, kind).into_iter().next().unwrap_or_default()
}

/// The values that clap attached to an error.
fn values(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}
