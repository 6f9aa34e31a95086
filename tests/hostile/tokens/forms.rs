//! Texts that are not tokens, and tokens with faults.

use sidewire_testing::token::base64url;

use super::{HEADER, Token, claims_of, kind, parts};

use crate::{
    campaign::Mutator,
    forge::{Forge, good_claims, signed},
};

pub(super) fn faults() -> Vec<Mutator<Token>> {
    let mut mutators = vec![Mutator::new("a good one with faults", |forge| {
        let good = forge.site.token.clone();
        let mut text = forge.mutated(good.as_bytes());
        // Whitespace at its ends is not part of the token.
        if text.trim_ascii() == good.as_bytes() {
            text.truncate(good.len() - 1);
        }
        Token::in_header(text)
    })];
    mutators.push(kind("a letter is another", |forge| {
        const LETTERS: &[u8] = b"ABCDEFGHabcdefgh01234567-_";
        let mut text = forge.site.token.clone().into_bytes();
        let place = forge.below(text.len());
        let others: Vec<_> = LETTERS
            .iter()
            .filter(|byte| **byte != text[place])
            .collect();
        text[place] = *forge.pick(&others);
        String::from_utf8(text).unwrap()
    }));
    for (name, part) in [("header", 0), ("claims", 1), ("signature", 2)] {
        mutators.push(kind(
            format!("a bit of the {name} is another"),
            move |forge| {
                let mut parts = parts(&forge.site.token);
                let text = parts[part].clone().into_bytes();
                let place = forge.below(text.len());
                let swapped = if text[place] == b'A' { b'B' } else { b'A' };
                parts[part].replace_range(place..=place, &char::from(swapped).to_string());
                parts.join(".")
            },
        ));
        mutators.push(kind(format!("another {name}"), move |forge| {
            let mut parts = parts(&forge.site.token);
            let len = forge.between(1, 200);
            parts[part] = base64url(forge.bytes(len));
            parts.join(".")
        }));
    }
    mutators
}

pub(super) fn shapes() -> Vec<Mutator<Token>> {
    let shape = |name: &str, text: fn(&str, [String; 3]) -> String| {
        kind(format!("shape: {name}"), move |forge| {
            let good = forge.site.token.clone();
            text(&good, parts(&good))
        })
    };
    vec![
        shape("nothing", |_, _| String::new()),
        shape("a dot", |_, _| ".".into()),
        shape("two dots", |_, _| "..".into()),
        shape("three dots", |_, _| "...".into()),
        shape("null", |_, _| "null".into()),
        shape("the header", |_, [h, _, _]| h),
        shape("two parts", |_, [h, c, _]| format!("{h}.{c}")),
        shape("no signature", |_, [h, c, _]| format!("{h}.{c}.")),
        shape("no header", |_, [_, c, s]| format!(".{c}.{s}")),
        shape("no claims", |_, [h, _, s]| format!("{h}..{s}")),
        shape("four parts", |good, [_, _, s]| format!("{good}.{s}")),
        shape("five parts", |good, [_, c, s]| format!("{good}.{c}.{s}")),
        shape("a dot behind", |good, _| format!("{good}.")),
        shape("a dot before", |good, _| format!(".{good}")),
        shape("in quotes", |good, _| format!("\"{good}\"")),
        shape("twice", |good, _| format!("{good},{good}")),
        shape("escaped dots", |_, [h, c, s]| format!("{h}%2E{c}%2E{s}")),
        shape("the word Bearer before", |good, _| format!("Bearer {good}")),
        shape("a newline in it", |_, [h, c, s]| format!("{h}\r\n.{c}.{s}")),
        shape("a NUL behind", |good, _| format!("{good}\0")),
        shape("as JSON", |_, [h, c, s]| {
            format!(r#"{{"protected":"{h}","payload":"{c}","signature":"{s}"}}"#)
        }),
        shape("parts swapped", |_, [h, c, s]| format!("{c}.{h}.{s}")),
        shape("padded", |_, [h, c, s]| format!("{h}.{c}.{s}=")),
        shape("a plus in the signature", |_, [h, c, s]| {
            format!("{h}.{c}.+{}", &s[1..])
        }),
        kind("shape: too long", |forge| {
            let padding = forge.word(8300);
            let mut claims = good_claims("ann");
            claims["pad"] = padding.into();
            signed(HEADER, claims.to_string())
        }),
        kind("shape: letters", |forge| {
            let len = forge.between(1, 9000);
            forge.word(len)
        }),
        Mutator::new("shape: bytes", |forge| {
            let len = forge.between(1, 300);
            // Never a line ending, after which headers would follow.
            let bytes = forge.bytes(len).into_iter();
            Token::in_header(bytes.filter(|byte| *byte != b'\n').collect::<Vec<_>>())
        }),
        kind("shape: an odd text", |forge| {
            forge.odd_text().replace(['\r', '\n'], "")
        }),
    ]
}

pub(super) fn signatures() -> Vec<Mutator<Token>> {
    let signature = |name: &str, text: fn(&mut Forge) -> Vec<u8>| {
        kind(format!("signature: {name}"), move |forge| {
            let [header, claims, _] = parts(&forge.site.token);
            let bytes = text(forge);
            format!("{header}.{claims}.{}", base64url(bytes))
        })
    };
    vec![
        signature("zeros", |_| vec![0; 32]),
        signature("ones", |_| vec![0xff; 32]),
        signature("by chance", |forge| forge.bytes(32)),
        signature("of another length", |forge| {
            let len = forge.pick(&[1, 16, 31, 33, 48, 64, 256]);
            forge.bytes(len)
        }),
        kind("signature: cut", |forge| {
            let good = forge.site.token.clone();
            let cut = forge.between(1, 40);
            good[..good.len() - cut].to_owned()
        }),
        kind("signature: of other claims", |forge| {
            let [header, _, signature] = parts(&forge.site.token);
            format!("{header}.{}.{signature}", base64url(claims_of("root")))
        }),
        kind("signature: of a header with a blank", |forge| {
            let [_, claims, signature] = parts(&forge.site.token);
            format!("{}.{claims}.{signature}", base64url(r#"{"alg": "HS256"}"#))
        }),
    ]
}
