const get = async (path) => (await fetch(path)).json();

const showItems = ({ banner, currency, items }) => {
  document.getElementById("banner").textContent = banner;
  const price = new Intl.NumberFormat("en", { style: "currency", currency });
  document.getElementById("items").replaceChildren(...items.map((item) => {
    const row = document.createElement("li");
    row.append(item.name, document.createElement("span"));
    row.lastChild.textContent = price.format(item.price_cents / 100);
    return row;
  }));
};

const showVersion = ({ message, version, pid }) => {
  document.getElementById("version").textContent = `${message} (version ${version}, pid ${pid})`;
};

get("/api/items").then(showItems);
get("/api/version").then(showVersion);
