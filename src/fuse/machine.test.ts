import test from "ava";
import { virtualises } from "./machine.js";

test("KVM is usual where the processor runs machines itself, and not where its instructions would be emulated one by one", (t) => {
  // Lines of /proc/cpuinfo: of AMD's, of Intel's, of a virtual machine whose kernel has KVM without either, of ARM's.
  t.true(
    virtualises("vendor_id\t: AuthenticAMD\nflags\t\t: fpu vme lahf_lm cmp_legacy svm extapic cr8_legacy\nbugs\t\t:\n"),
  );
  t.true(virtualises("flags\t\t: fpu vme monitor ds_cpl vmx smx est\nvmx flags\t: vnmi preemption_timer\n"));
  t.false(virtualises("flags\t\t: fpu vme hypervisor lahf_lm cmp_legacy cr8_legacy vmmcall svm_lock\nbugs\t\t: svm\n"));
  t.false(virtualises("Features\t: fp asimd evtstrm aes pmull sha1\n"));
});
