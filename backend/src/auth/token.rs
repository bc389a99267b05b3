//! The form of bearer tokens (RFC 6750): a prefix that tells people and secret scanners what
//! they are, 40 random characters, and a checksum that tells a mistyped one without a look-up.

use super::secret::{random_text, sha256_hex};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// 62^40 is above 2^238.
const RANDOM_CHARACTERS: usize = 40;

/// 62^6 is above 2^32.
const CHECK_CHARACTERS: usize = 6;

/// What a token is for, as its prefix says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A person's or a script's.
    User,
    /// An agent's.
    Agent,
    /// Good once, to enrol an agent.
    Enrolment,
}

impl TokenKind {
    const ALL: [Self; 3] = [Self::User, Self::Agent, Self::Enrolment];

    fn prefix(self) -> &'static str {
        match self {
            Self::User => "ispu_",
            Self::Agent => "ispa_",
            Self::Enrolment => "ispe_",
        }
    }
}

/// A text that is no token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not have a token's form.
    #[error("expected a token such as ispu_ and {} characters", RANDOM_CHARACTERS + CHECK_CHARACTERS)]
    Form,
    /// Its checksum is another one.
    #[error("the token is mistyped or cut off: its checksum is wrong")]
    Checksum,
}

/// A fresh token.
pub fn new_token(kind: TokenKind) -> String {
    let random = random_text(BASE62, RANDOM_CHARACTERS);
    let body = format!("{}{random}", kind.prefix());
    let check = checksum(&body);
    body + &check
}

/// Tells what a token is for by its form alone. The tokens of before had no checksum; agents
/// still hold some.
///
/// # Errors
/// When it is none, or was mistyped.
pub fn check_token(token: &str) -> Result<TokenKind, TokenError> {
    let kind = TokenKind::ALL
        .into_iter()
        .find(|kind| token.starts_with(kind.prefix()))
        .ok_or(TokenError::Form)?;
    let characters = &token[kind.prefix().len()..];
    if !characters.bytes().all(|byte| BASE62.contains(&byte)) {
        return Err(TokenError::Form);
    }
    match characters.len() {
        RANDOM_CHARACTERS => Ok(kind),
        length if length != RANDOM_CHARACTERS + CHECK_CHARACTERS => Err(TokenError::Checksum),
        _ => {
            let (body, check) = token.split_at(token.len() - CHECK_CHARACTERS);
            (check == checksum(body))
                .then_some(kind)
                .ok_or(TokenError::Checksum)
        }
    }
}

/// What is stored of a token.
pub fn token_hash(token: &str) -> String {
    sha256_hex(&[token.as_bytes()])
}

/// CRC-32 (IEEE 802.3) of a text in base 62, highest digit first.
fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECK_CHARACTERS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[usize::from((rest % 62) as u8)];
        rest /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_shows_what_it_is_for_and_is_never_the_same_twice() {
        for (kind, prefix) in [
            (TokenKind::User, "ispu_"),
            (TokenKind::Agent, "ispa_"),
            (TokenKind::Enrolment, "ispe_"),
        ] {
            let token = new_token(kind);
            assert!(token.starts_with(prefix), "{token}");
            assert_eq!(token.len(), 51);
            assert_eq!(check_token(&token), Ok(kind));
            assert_ne!(token, new_token(kind));
        }
    }

    #[test]
    fn the_checksum_is_crc_32_in_base_62() {
        // The check value of CRC-32: that of "123456789" is 0xCBF43926.
        assert_eq!(checksum("123456789"), "3jZRME");
        assert_eq!(0xCBF4_3926_u32, 3_421_780_262);
    }

    #[test]
    fn a_slip_of_the_finger_is_told_without_a_look_up() {
        let token = new_token(TokenKind::User);
        for at in 5..token.len() {
            let mut wrong = token.clone().into_bytes();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(check_token(&wrong), Err(TokenError::Checksum), "{wrong}");
        }
        let cut = &token[..token.len() - 1];
        assert_eq!(check_token(cut), Err(TokenError::Checksum));
        assert_eq!(
            check_token(&token[..45]),
            Ok(TokenKind::User),
            "one of before"
        );
        for none in ["", "ispu_", "ispx_0", "Bearer", "ispu_ä", "ispu_a-b"] {
            let error = check_token(none).unwrap_err();
            assert!(
                matches!(error, TokenError::Form | TokenError::Checksum),
                "{none:?}: {error}"
            );
        }
    }

    #[test]
    fn the_stored_form_does_not_show_the_token() {
        let token = new_token(TokenKind::User);
        let hash = token_hash(&token);
        assert_eq!(hash.len(), 64);
        assert!(!hash.contains(&token[5..]));
    }
}
