//! Tells what there is.

mod greeting;

use market_common::{MARKET, serve};

fn main() -> std::io::Result<()> {
    serve(|path| match path {
        "/version" => Some(format!("{}\n", greeting::GREETING)),
        "/" => Some(format!("stock of {MARKET}: 3 apples\n")),
        _ => None,
    })
}
