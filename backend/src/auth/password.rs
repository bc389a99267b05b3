//! Passwords: Argon2id, as OWASP's password storage guide sets it.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

use isopath_api::access::{LONGEST_PASSWORD, SHORTEST_PASSWORD};

use super::secret::random_text;

/// A password that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It is too short or too long.
    #[error("expected a password of 12 to 256 characters, found {found}")]
    Length {
        /// Its characters.
        found: usize,
    },
    /// The hash could not be made.
    #[error("cannot hash the password")]
    Hash,
}

/// What is stored of a password. Takes some 20 ms and 19 MiB.
///
/// # Errors
/// When the password is too short or too long.
pub fn hash_password(password: &str) -> Result<String, PasswordError> {
    let found = password.chars().count();
    if !(SHORTEST_PASSWORD..=LONGEST_PASSWORD).contains(&found) {
        return Err(PasswordError::Length { found });
    }
    let hash = argon2()
        .hash_password(password.as_bytes())
        .map_err(|_| PasswordError::Hash)?;
    Ok(hash.to_string())
}

/// Whether a password is the one that was hashed. Takes as long for a user that does not
/// exist, so that the time does not tell.
pub(super) fn verify_password(password: &str, hash: Option<&str>) -> bool {
    if password.chars().count() > LONGEST_PASSWORD {
        return false;
    }
    let parsed = PasswordHash::new(hash.unwrap_or(NOBODYS_HASH));
    let matches = parsed.is_ok_and(|parsed| {
        argon2()
            .verify_password(password.as_bytes(), &parsed)
            .is_ok()
    });
    matches && hash.is_some()
}

/// Whether a hash was made with other parameters than ours of today.
pub(super) fn is_outdated(hash: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(hash) else {
        return true;
    };
    let today = params_of_today();
    !Params::try_from(&parsed).is_ok_and(|found| {
        (found.m_cost(), found.t_cost(), found.p_cost())
            == (today.m_cost(), today.t_cost(), today.p_cost())
    })
}

/// A password of 119 random bits, without characters that are easily confused.
pub fn generate_password() -> String {
    random_text(b"abcdefghijkmnpqrstuvwxyz23456789", 24)
}

/// A hash of the same cost as real ones.
const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGF0IGFsbCE\
                            $6R5ZC5oXpU0QmU2cEhYy3wB4FJpJp8lXJt3xqSxJm0w";

fn params_of_today() -> Params {
    Params::new(19 * 1024, 2, 1, None).expect("within Argon2's bounds")
}

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params_of_today())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hashed_password_is_verified() {
        let hash = hash_password("correct horse battery").unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(verify_password("correct horse battery", Some(&hash)));
        assert!(!verify_password("correct horse batterz", Some(&hash)));
        assert!(!verify_password("correct horse battery", None));
    }

    #[test]
    fn nobodys_hash_is_well_formed_so_that_it_costs_as_much() {
        let parsed = PasswordHash::new(NOBODYS_HASH).unwrap();
        let params = Params::try_from(&parsed).unwrap();
        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (19456, 2, 1)
        );
        assert!(parsed.salt.is_some() && parsed.hash.is_some());
    }

    #[test]
    fn a_hash_of_other_parameters_is_outdated() {
        let hash = hash_password("correct horse battery").unwrap();
        assert!(!is_outdated(&hash));
        for other in [
            hash.replace("t=2", "t=3"),
            hash.replace("m=19456", "m=8192"),
            String::new(),
        ] {
            assert!(is_outdated(&other), "{other}");
        }
    }

    #[test]
    fn a_password_has_12_to_256_characters() {
        for length in [11, 257] {
            assert_eq!(
                hash_password(&"x".repeat(length)),
                Err(PasswordError::Length { found: length })
            );
        }
    }

    #[test]
    fn a_generated_password_is_one_that_is_taken() {
        let password = generate_password();
        assert_eq!(password.len(), 24);
        assert_ne!(password, generate_password());
    }
}
