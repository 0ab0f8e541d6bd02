// Fibers: a stack each, and the switch between two of them. x86-64 saves what the ABI says a call keeps, in assembly;
// elsewhere ucontext does it, some fifty times slower (it asks the kernel for the signal mask).
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace tw::simt {

#if defined(__x86_64__)
extern "C" void tw_simt_switch(void** save, void* load);
asm(R"(
.text
.type tw_simt_switch, @function
tw_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tw_simt_switch, .-tw_simt_switch
)");
// A stack whose first switch enters `entry`; aligned as after a call.
inline void* make_fiber(void* stack, size_t bytes, void (*entry)()) {
  auto* top = reinterpret_cast<void**>(static_cast<char*>(stack) + bytes);
  *--top = nullptr;  // entry's return address; it never returns
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  return top;
}
#else
inline void tw_simt_switch(void** save, void* load) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, static_cast<ucontext_t*>(load));
}
inline void* make_fiber(void* stack, size_t bytes, void (*entry)()) {
  auto* c = static_cast<ucontext_t*>(stack);
  getcontext(c);
  c->uc_stack = {static_cast<char*>(stack) + sizeof(ucontext_t), 0, bytes - sizeof(ucontext_t)};
  c->uc_link = nullptr;
  makecontext(c, entry, 0);
  return c;
}
#endif

}  // namespace tw::simt
