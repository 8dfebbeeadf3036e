//! A hub credential. It can be sent to a hub and compared; it cannot be printed by accident.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A bearer token. `Debug` hides it and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token as read from a file, a variable or a Secret: surrounding white space is not part of it.
    /// `None` when nothing remains.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        (!text.is_empty()).then(|| Token(text.to_owned()))
    }

    /// The secret itself, for an Authorization header or the control stream to a seed.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Tells credentials apart in cache keys without keeping them: 32 bytes, keyed so that it matches nothing else.
    pub fn fingerprint(&self) -> [u8; 32] {
        blake3::derive_key("model-p2p 2026 token fingerprint", self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The token with which a repository is read now. Clones are one: kubelet rotates tokens under open files, so
/// it is looked at each time it is used.
#[derive(Clone, Debug, Default)]
pub struct Credential(Arc<Mutex<Option<Token>>>);

impl Credential {
    pub fn get(&self) -> Option<Token> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn set(&self, token: Option<Token>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Whether anybody else holds it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl From<Option<Token>> for Credential {
    fn from(token: Option<Token>) -> Credential {
        Credential(Arc::new(Mutex::new(token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_never_printed() {
        let token = Token::new(" hf_secret\n").expect("a token");
        assert_eq!(token.reveal(), "hf_secret");
        assert!(!format!("{token:?}").contains("secret"));
        assert!(Token::new(" \n").is_none());
    }
}
