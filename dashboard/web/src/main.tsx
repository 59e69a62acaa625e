import { render } from "preact";

import { App } from "./app";
import { followAddress } from "./state/address";
import { followTheme } from "./state/theme";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/views.css";
import "./styles/inside.css";

followTheme();
followAddress();
const root = document.getElementById("app");
if (root) render(<App />, root);
