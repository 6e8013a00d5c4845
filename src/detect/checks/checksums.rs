//! Check digits, by the book.
//!
//! Owns arithmetic over digits and letters; knows nothing about texts. Input is the bare number without separators; a
//! wrong length or a stray byte is simply not valid.

/// The digits of `bytes`, other bytes left out. At most 24 of them; a longer number is none of ours and gives an empty
/// array.
pub(in crate::detect) fn digits(bytes: &[u8]) -> Digits {
    let mut found = Digits { values: [0; 24], count: 0 };
    for byte in bytes.iter().filter(|byte| byte.is_ascii_digit()) {
        let Some(place) = found.values.get_mut(found.count) else { return Digits { values: [0; 24], count: 0 } };
        *place = byte - b'0';
        found.count += 1;
    }
    found
}

/// Up to 24 digits, as numbers 0 to 9.
pub(in crate::detect) struct Digits {
    values: [u8; 24],
    count: usize,
}

impl std::ops::Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.values.get(..self.count).unwrap_or_default()
    }
}

/// Luhn: cards, Canadian SIN.
pub(in crate::detect) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    digits.len() > 1 && sum.is_multiple_of(10)
}

/// The sum of digits times weights.
fn weighted(digits: &[u8], weights: &[i32]) -> i32 {
    digits.iter().zip(weights).map(|(digit, weight)| i32::from(*digit) * weight).sum()
}

/// Characters of an IBAN of that country; `None` where there is none.
pub(in crate::detect) fn iban_length(country: &[u8]) -> Option<usize> {
    const LENGTHS: &[u8] = b"\
        AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18\
        FK18FO18FR27GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20\
        LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22SA24SE24SI19\
        SK24SM27TN24TR26UA29VA22XK20";
    let row = LENGTHS.as_chunks::<4>().0.iter().find(|row| row.starts_with(country) && country.len() == 2)?;
    Some(usize::from(row[2] - b'0') * 10 + usize::from(row[3] - b'0'))
}

/// ISO 13616: country, check digits, account; upper case, no spaces.
pub(in crate::detect) fn iban(number: &[u8]) -> bool {
    let Some((head, account)) = number.split_at_checked(4) else { return false };
    let remainder = account.iter().chain(head).try_fold(0_u32, |sum, byte| match byte {
        b'0'..=b'9' => Some((sum * 10 + u32::from(byte - b'0')) % 97),
        b'A'..=b'Z' => Some((sum * 100 + u32::from(byte - b'A') + 10) % 97),
        _ => None,
    });
    remainder == Some(1) && head.get(..2).and_then(iban_length) == Some(number.len())
}

/// Verhoeff: Indian Aadhaar.
pub(in crate::detect) fn verhoeff(digits: &[u8]) -> bool {
    const STEP: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let mut check = 0;
    for (place, digit) in digits.iter().rev().enumerate() {
        let moved = (0..place % 8).fold(*digit, |digit, _| STEP.get(usize::from(digit)).copied().unwrap_or_default());
        check = dihedral(check, moved);
    }
    digits.len() > 1 && check == 0
}

/// Composition in the symmetries of the pentagon: 0 to 4 turn, 5 to 9 turn and flip.
fn dihedral(a: u8, b: u8) -> u8 {
    match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + b) % 5 + 5,
        (false, true) => (a + 5 - b) % 5 + 5,
        (false, false) => (a + 5 - b) % 5,
    }
}

/// Brazilian CPF: two digits modulo 11.
pub(in crate::detect) fn cpf(digits: &[u8]) -> bool {
    const WEIGHTS: [i32; 10] = [11, 10, 9, 8, 7, 6, 5, 4, 3, 2];
    let first = weighted(digits, &WEIGHTS[1..]) * 10 % 11 % 10;
    let second = weighted(digits, &WEIGHTS) * 10 % 11 % 10;
    digits.len() == 11 && !same(digits) && first == at(digits, 9) && second == at(digits, 10)
}

/// Dutch BSN: the eleven test.
pub(in crate::detect) fn bsn(digits: &[u8]) -> bool {
    digits.len() == 9 && !same(digits) && weighted(digits, &[9, 8, 7, 6, 5, 4, 3, 2, -1]) % 11 == 0
}

/// Polish PESEL, with its month of birth.
pub(in crate::detect) fn pesel(digits: &[u8]) -> bool {
    let month = (at(digits, 2) * 10 + at(digits, 3)) % 20;
    let day = at(digits, 4) * 10 + at(digits, 5);
    digits.len() == 11
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && weighted(digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]) % 10 == 0
}

/// German tax id: ISO 7064 modulo 11, 10, and one digit that repeats among the first ten.
pub(in crate::detect) fn steuer_id(digits: &[u8]) -> bool {
    let Some((head, last)) = digits.split_first_chunk::<10>().filter(|(_, rest)| rest.len() == 1) else { return false };
    let product = head.iter().fold(10, |product, digit| {
        let sum = (i32::from(*digit) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    let mut seen = [0_u8; 10];
    for digit in head {
        if let Some(count) = seen.get_mut(usize::from(*digit)) {
            *count += 1;
        }
    }
    let repeats = seen.iter().filter(|count| **count > 1).count();
    head[0] != 0 && repeats == 1 && seen.iter().all(|count| *count <= 3) && (11 - product) % 10 == at(last, 0)
}

/// French NIR: thirteen digits and their key modulo 97.
pub(in crate::detect) fn nir(digits: &[u8]) -> bool {
    let number = |part: &[u8]| part.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(*digit));
    digits.split_at_checked(13).is_some_and(|(body, key)| key.len() == 2 && 97 - number(body) % 97 == number(key))
}

/// Spanish DNI (eight digits) or NIE (X, Y or Z and seven digits), each with its letter; upper case.
pub(in crate::detect) fn dni(number: &[u8]) -> bool {
    let Some((letter, body)) = number.split_last().filter(|(_, body)| body.len() == 8) else { return false };
    let value = body.iter().enumerate().try_fold(0_usize, |sum, (place, byte)| match (place, byte) {
        (_, b'0'..=b'9') => Some(sum * 10 + usize::from(byte - b'0')),
        (0, b'X'..=b'Z') => Some(usize::from(byte - b'X')),
        _ => None,
    });
    value.is_some_and(|value| b"TRWAGMYFPDXBNJZSQVHLCKE".get(value % 23) == Some(letter))
}

/// Italian codice fiscale: fifteen characters and the letter that follows from them; upper case.
pub(in crate::detect) fn codice_fiscale(code: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let Some((last, body)) = code.split_last().filter(|(_, body)| body.len() == 15) else { return false };
    let sum = body.iter().enumerate().try_fold(0_u32, |sum, (place, byte)| {
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A',
            _ => return None,
        };
        let odd = ODD.get(usize::from(value)).copied().unwrap_or_default();
        Some(sum + if place % 2 == 0 { odd } else { u32::from(value) })
    });
    sum.is_some_and(|sum| u32::from(*last) == u32::from(b'A') + sum % 26)
}

/// Whether all digits are one and the same: formally valid in some schemes, and never anybody's.
pub(in crate::detect) fn same(digits: &[u8]) -> bool {
    digits.windows(2).all(|pair| pair.first() == pair.last())
}

fn at(digits: &[u8], place: usize) -> i32 {
    digits.get(place).copied().map_or(0, i32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One valid number per scheme; any single digit changed must not validate.
    fn guards(check: fn(&[u8]) -> bool, number: &str) {
        let good = digits(number.as_bytes());
        assert!(check(&good), "{number}");
        for place in 0..good.len() {
            for other in 0..10 {
                let mut bad = good.to_vec();
                bad[place] = other;
                assert!(!check(&bad) || other == good[place], "{number} with {other} at {place}");
            }
        }
        assert!(!check(&[]), "nothing is valid");
        assert!(!check(&good[1..]), "a digit less");
    }

    #[test]
    fn check_digits_hold_and_catch_every_single_error() {
        guards(luhn, "4111111111111111");
        guards(luhn, "378282246310005");
        guards(verhoeff, "234123412346");
        guards(cpf, "529.982.247-25");
        guards(bsn, "111222333");
        guards(pesel, "44051401359");
        guards(nir, "2 55 08 14 168 025 38");
        assert!(steuer_id(&digits(b"86095742719")));
        assert!(!steuer_id(&digits(b"86095742718")));
        assert!(!steuer_id(&digits(b"12345678903")), "no digit repeats");
    }

    #[test]
    fn ibans_hold_by_country_length_and_remainder() {
        for good in ["DE89370400440532013000", "GB82WEST12345698765432", "NL91ABNA0417164300", "NO9386011117947"] {
            assert!(iban(good.as_bytes()), "{good}");
        }
        for bad in ["DE89370400440532013001", "DE8937040044053201300", "ZZ89370400440532013000", "de89", "", "é€"] {
            assert!(!iban(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn lettered_ids_hold() {
        assert!(dni(b"12345678Z") && dni(b"X1234567L"));
        assert!(!dni(b"12345678A") && !dni(b"1X345678Z") && !dni(b""));
        assert!(codice_fiscale(b"RSSMRA85T10A562S"));
        assert!(!codice_fiscale(b"RSSMRA85T10A562T") && !codice_fiscale(b"RSSMRA85T10A562"));
    }

    #[test]
    fn a_number_too_long_to_be_one_is_none() {
        assert_eq!(digits(&[b'1'; 25]).len(), 0);
        assert_eq!(&*digits(b"4-5 6a"), &[4, 5, 6]);
    }
}
