// One browser for all checks of a process.
import { after, before } from "node:test";

import { close, open } from "./browser.mjs";

before(open);
after(close);
