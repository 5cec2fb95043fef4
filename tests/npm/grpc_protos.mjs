// The services of the .proto files beside this one, as grpc-js knows them.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const load = (name) =>
  grpc.loadPackageDefinition(loader.loadSync(new URL(name, import.meta.url).pathname, { longs: String, enums: String, defaults: true }));

export const echo = load("echo.proto").echo;
export const health = load("health.proto").grpc.health.v1;
export { grpc };
