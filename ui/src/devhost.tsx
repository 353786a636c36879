import { devhost } from "./ipc/devhost";
import { start } from "./start";

void start(devhost());
