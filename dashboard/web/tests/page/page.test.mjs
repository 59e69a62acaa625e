// The page against a real coordinator, in one browser. tests/run.mjs starts both and says where the coordinator is. What
// changes what the coordinator does comes last.
import "./session.mjs";

import "./views.mjs";
import "./trials.mjs";
import "./address.mjs";
import "./texts.mjs";
import "./keyboard.mjs";
import "./transport.mjs";
import "./many.mjs";
import "./looks.mjs";
import "./live.mjs";
import "./actions.mjs";
