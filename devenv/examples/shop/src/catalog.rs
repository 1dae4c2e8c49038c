//! What the shop sells.

use serde_json::{Value, json};

use crate::config::Config;

/// Prices are in hundredths: money in floating point loses cents.
const ITEMS: &[(u32, &str, u32)] = &[(1, "Notebook", 450), (2, "Fountain pen", 2900), (3, "Ink, blue", 875)];

/// The body of `/api/items`.
pub(crate) fn listing(config: &Config) -> Value {
    let items: Vec<Value> =
        ITEMS.iter().map(|(id, name, price_cents)| json!({"id": id, "name": name, "price_cents": price_cents})).collect();
    json!({"banner": config.banner, "currency": config.currency, "items": items})
}
