//! Takes orders.

mod greeting;

use market_common::{MARKET, serve};

fn main() -> std::io::Result<()> {
    serve(|path| match path {
        "/version" => Some(format!("{}\n", greeting::GREETING)),
        "/" => Some(std::fs::read_to_string("/srv/pages/index.html").unwrap_or_else(|_| format!("orders of {MARKET}\n"))),
        _ => None,
    })
}
