//! Where the passphrase of the operator key comes from: a prompt, stdin or a file descriptor; never an argument.

use std::{
    fs::File,
    io::{IsTerminal, Read},
};

use unibus_keyfile::{error::KeyTextError, operator_key::MIN_PASSPHRASE_CHARS};
use zeroize::Zeroizing;

use crate::{cli::Passphrase, error::Failure};

const MAX_BYTES: u64 = 1024;

impl Passphrase {
    /// Whether one is given at all.
    pub(crate) const fn is_given(&self) -> bool {
        self.passphrase || self.passphrase_stdin || self.passphrase_fd.is_some()
    }

    /// The passphrase for a new lock; asked for twice at the terminal.
    pub(crate) fn choose(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        if !self.is_given() {
            return Ok(None);
        }
        let chosen = self.read("New passphrase of the operator key: ")?;
        if chosen.chars().count() < MIN_PASSPHRASE_CHARS {
            return Err(Failure::Passphrase("the passphrase has fewer than 8 characters"));
        }
        if self.passphrase && *prompt("Once more: ")? != *chosen {
            return Err(Failure::Passphrase("the two passphrases differ"));
        }
        Ok(Some(chosen))
    }

    /// The passphrase of an existing lock. At a terminal it is asked for without being told to.
    pub(crate) fn give(&self) -> Result<Zeroizing<String>, Failure> {
        if self.is_given() || std::io::stdin().is_terminal() {
            return self.read("Passphrase of the operator key: ");
        }
        Err(KeyTextError::Locked.into())
    }

    fn read(&self, question: &str) -> Result<Zeroizing<String>, Failure> {
        if self.passphrase_stdin {
            return first_line(std::io::stdin().lock());
        }
        match self.passphrase_fd {
            Some(number) => {
                let unreadable = |_| Failure::Passphrase("the descriptor of the passphrase cannot be read");
                first_line(File::open(format!("/dev/fd/{number}")).map_err(unreadable)?)
            }
            None => prompt(question),
        }
    }
}

fn prompt(question: &str) -> Result<Zeroizing<String>, Failure> {
    rpassword::prompt_password(question)
        .map(Zeroizing::new)
        .map_err(|_| Failure::Passphrase("there is no terminal to ask for the passphrase at"))
}

fn first_line(from: impl Read) -> Result<Zeroizing<String>, Failure> {
    // Sized before it is filled: growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(2048));
    let read = from.take(MAX_BYTES + 1).read_to_end(&mut text);
    read.map_err(|_| Failure::Passphrase("the passphrase cannot be read"))?;
    let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if u64::try_from(line.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(Failure::Passphrase("the passphrase has more than 1024 bytes"));
    }
    match std::str::from_utf8(line) {
        Ok("") => Err(Failure::Passphrase("the passphrase is empty")),
        Ok(line) => Ok(Zeroizing::new(line.to_owned())),
        Err(_) => Err(Failure::Passphrase("the passphrase is not text")),
    }
}
