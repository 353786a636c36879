import { devhost } from "./ipc/devhost";
import { start } from "./start";

start(devhost());
