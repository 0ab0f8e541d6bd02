// The module tilewright._engine: exceptions, the runtime's knobs, and every op's binding.
#include "bindings/bind.h"
#include "dispatch.h"
#include "parallel.h"
#include "tensor/allocator.h"

namespace tw {

std::string str_of(Device d) { return d.type == DeviceType::kCpu ? "cpu" : str("cuda:", int{d.index}); }

// A plan in the making or made: records the launches between begin() and end() on this thread.
struct Recorder {
  Plan plan;
  void begin() {
    TW_CHECK_AS(std::runtime_error, !recording_plan, "Plan: a plan is being recorded already");
    recording_plan = &plan;
  }
  void end() {
    if (recording_plan == &plan) recording_plan = nullptr;
  }
  ~Recorder() { end(); }
};

py::dict dict_of(const MemoryStats& s) {
  py::dict d;
  d["allocated_bytes"] = s.allocated_bytes;
  d["peak_allocated_bytes"] = s.peak_allocated_bytes;
  d["reserved_bytes"] = s.reserved_bytes;
  d["allocations"] = s.allocations;
  d["cache_hits"] = s.cache_hits;
  return d;
}

void bind_runtime(py::module_& m) {
  // std::invalid_argument, std::out_of_range, std::overflow_error and std::bad_alloc have pybind11's own translators.
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const TypeError& e) { PyErr_SetString(PyExc_TypeError, e.what()); } catch (const NotImplemented& e) {
      PyErr_SetString(PyExc_NotImplementedError, e.what());
    }
  });
  py::class_<Device>(m, "device", "Where an array lives: device('cpu'), or device('cuda', 0).")
      .def(py::init([](const std::string& s, std::optional<int> index) {
             std::string type = s;
             if (const auto colon = s.find(':'); colon != std::string::npos) {
               TW_CHECK(!index, "device: the index is given twice, got '", s, "' and ", *index);
               type = s.substr(0, colon);
               try {
                 size_t used = 0;
                 index = std::stoi(s.substr(colon + 1), &used);
                 if (used != s.size() - colon - 1) index = -1;
               } catch (const std::exception&) { index = -1; }
             }
             TW_CHECK((type == "cpu" || type == "cuda") && index.value_or(0) >= 0 && index.value_or(0) < 128,
                      "device: must be 'cpu', 'cuda' or 'cuda:N', got '", s, "'");
             return Device{type == "cpu" ? DeviceType::kCpu : DeviceType::kCuda,
                           static_cast<int8_t>(index.value_or(0))};
           }),
           py::arg("type"), py::arg("index") = py::none())
      .def(py::init([](const Device& d) { return d; }), py::arg("device"))
      .def_property_readonly("type", [](const Device& d) { return name(d.type); })
      .def_property_readonly("index",
                             [](const Device& d) -> std::optional<int> {
                               if (d.type == DeviceType::kCpu) return std::nullopt;
                               return d.index;
                             })
      .def("__eq__",
           [](const Device& a, const py::object& b) { return py::isinstance<Device>(b) && a == b.cast<Device>(); })
      .def("__hash__", [](const Device& d) { return static_cast<int>(d.type) * 128 + d.index; })
      .def("__str__", [](const Device& d) { return str_of(d); })
      .def("__repr__",
           [](const Device& d) {
             return d.type == DeviceType::kCpu ? std::string("device(type='cpu')")
                                               : str("device(type='cuda', index=", int{d.index}, ")");
           })
      .def(py::pickle([](const Device& d) { return py::make_tuple(static_cast<int>(d.type), int{d.index}); },
                      [](const py::tuple& t) {
                        return Device{static_cast<DeviceType>(t[0].cast<int>()), static_cast<int8_t>(t[1].cast<int>())};
                      }));
  m.def("cpu_capability", &cpu_capability);
  m.def("cpu_levels", &cpu_levels);
  m.def("kernel_names", &kernel_names);
  m.def("which", &which);
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads);
  m.def("available_cores", &available_cores);
  m.def("memory_stats", [] { return dict_of(cpu_allocator::stats()); });
  m.def("empty_cache", &cpu_allocator::empty_cache);
  m.def("reset_peak_memory_stats", &cpu_allocator::reset_peak);
  py::class_<Recorder>(m, "Plan", "A recorded sequence of kernel launches, replayed from C++ over the same memory.")
      .def(py::init<>())
      .def("begin", &Recorder::begin)
      .def("end", &Recorder::end)
      .def("__len__", [](const Recorder& r) { return r.plan.size(); })
      .def("names", [](const Recorder& r) { return r.plan.names(); })
      .def(
          "replay",
          [](const Recorder& r, int64_t times) {
            TW_CHECK_AS(std::runtime_error, recording_plan != &r.plan, "Plan: still recording; call end() first");
            r.plan.replay(times);
          },
          py::arg("times") = 1);
}

}  // namespace tw

PYBIND11_MODULE(_engine, m) {
  m.doc() = "tilewright's engine: arrays and ops without autograd";
#define TW_X(name) tw::bind_##name(m);
  TW_BINDINGS(TW_X)
#undef TW_X
}
