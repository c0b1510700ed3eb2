// A push service that others wrote (npm's web-push-testing), on a port of ours. Usage: node push-service.mjs <port>

import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { PushApiModel } = require("web-push-testing/src/PushApiModel.js");
const Server = require("web-push-testing/src/server.js");

new Server(new PushApiModel(), Number(process.argv[2])).startServer();
