// What the page says, in English and Chinese. A text that is missing in a language would be shown by its key; a test looks for such.
export const WORDS = {
  en: {
    playground: "Playground", compare: "Compare", models: "Models", activity: "Activity", usage: "Usage", api: "API",
    skip: "Skip to the content", language: "中文", keys: "Keys", close: "Close", save: "Save", views: "Views",
    keysTitle: "Keys for this gateway",
    keysAbout: "They are kept in this tab alone, until it is closed. Without keys in its configuration the gateway needs no client key.",
    clientKey: "Client key (chat, models)", adminKey: "Admin key (load, cancel, activity)", keyRefused: "The gateway refused this key.",
    model: "Model", say: "Message", sayHint: "Ask something. Enter sends, Shift+Enter begins a line, Esc stops.",
    send: "Send", stop: "Stop", clear: "New conversation", conversation: "Conversation", you: "You",
    parameters: "Parameters", system: "Instructions (system)", tools: "Tools (a JSON list)", further: "Further fields of the body (a JSON object)",
    wrongJson: "this is JSON of another kind", code: "This request as code", copy: "Copy", copied: "Copied", copyFailed: "Not copied",
    waiting: "Waiting for the model …", thinking: "Thinking …", thought: "Thought", calls: "Calls", result: "Result:",
    resultOfCall: "What the tool returned", giveResult: "Give result", stages: "Stages", sources: "Sources",
    "stage-running": "runs", "stage-finished": "done", "stage-failed": "failed",
    firstToken: "first token", tokens: "tokens", cached: "cached", tokensPerSecond: "tokens/s", ended: "ended:", stopped: "stopped",
    noModels: "No models are configured.", unreachable: "The gateway cannot be reached:",
    state: "State", memory: "Memory", context: "Context", requests: "Requests", actions: "Actions", device: "Device",
    load: "Load", unload: "Unload", pin: "Pin", unpin: "Unpin", pinned: "pinned",
    "state-cold": "not loaded", "state-loading": "loading", "state-ready": "ready", "state-busy": "busy", "state-evicting": "leaving", "state-failed": "failed",
    members: "Members of", drain: "Drain", resume: "Resume", drained: "drained", failures: "failed",
    "health-healthy": "healthy", "health-ejected": "ejected", "health-trying": "to be tried",
    running: "running", queued: "waiting", of: "of", taken: "taken", loading: "Loading",
    adminNeeded: "Loading, pins, running requests and events need an admin key, one of MM_GATEWAY_ADMIN_KEYS: give it under Keys.",
    adminRefused: "The gateway refused the admin key: give another one under Keys.",
    adminOff: "The operator's part is off: start the gateway with MM_GATEWAY_ADMIN_KEYS=… to turn it on, and give the key under Keys.",
    throughput: "Output tokens a second", firstTokens: "Seconds to the first token", atWork: "Requests",
    lastMinutes: "the last five minutes", nothingYet: "nothing yet", runningRequests: "Running requests", recentRequests: "Ended just now",
    noneRunning: "Nothing runs.", noneRecent: "Nothing has ended yet.", cancel: "Cancel", endpoint: "Endpoint", key: "Key", since: "Since", took: "Took",
    "request-arriving": "arriving", "request-waiting": "waiting", "request-running": "running", "request-finished": "ended", clientGone: "client left",
    events: "Loads and evictions", noEvents: "No model has come or left yet.",
    "event-loaded": "loaded", "event-evicted": "evicted", "event-failed": "failed to load",
    "reason-asked": "unloaded by request", "reason-idle": "idle for too long", "reason-room": "made room", "reason-failed": "its engine failed",
    "reason-closing": "the gateway closes", roomFor: "for", fromHost: "from host memory",
    groupedBy: "By", period: "Days (UTC)", "by-key": "key", "by-key,model": "key and model", "by-model": "model", "by-day": "day",
    "days-1": "today", "days-7": "the last 7", "days-30": "the last 30", always: "all", day: "Day", noUsage: "Nothing has been used.", total: "Together",
    prompt_tokens: "Prompt tokens", cached_tokens: "of them cached", output_tokens: "Output tokens", reasoning_tokens: "of them thought", cost: "Cost",
  },
  zh: {
    playground: "试用", compare: "比较", models: "模型", activity: "动态", usage: "用量", api: "接口",
    skip: "跳到内容", language: "English", keys: "密钥", close: "关闭", save: "保存", views: "视图",
    keysTitle: "访问本网关的密钥",
    keysAbout: "密钥只保存在此标签页，关闭后即清除。若网关未配置密钥，则无需客户端密钥。",
    clientKey: "客户端密钥（对话、模型）", adminKey: "管理密钥（加载、取消、动态）", keyRefused: "网关拒绝了此密钥。",
    model: "模型", say: "消息", sayHint: "请输入问题。回车发送，Shift+回车换行，Esc 停止。",
    send: "发送", stop: "停止", clear: "新对话", conversation: "对话", you: "你",
    parameters: "参数", system: "系统提示", tools: "工具（JSON 列表）", further: "请求体的其他字段（JSON 对象）",
    wrongJson: "JSON 类型不符", code: "此请求的代码", copy: "复制", copied: "已复制", copyFailed: "未能复制",
    waiting: "等待模型……", thinking: "思考中……", thought: "思考过程", calls: "调用", result: "结果：",
    resultOfCall: "工具的返回内容", giveResult: "提交结果", stages: "步骤", sources: "来源",
    "stage-running": "进行中", "stage-finished": "完成", "stage-failed": "失败",
    firstToken: "首个词元", tokens: "词元", cached: "已缓存", tokensPerSecond: "词元/秒", ended: "结束：", stopped: "已停止",
    noModels: "没有配置模型。", unreachable: "无法连接网关：",
    state: "状态", memory: "内存", context: "上下文", requests: "请求", actions: "操作", device: "设备",
    load: "加载", unload: "卸载", pin: "固定", unpin: "取消固定", pinned: "已固定",
    "state-cold": "未加载", "state-loading": "加载中", "state-ready": "就绪", "state-busy": "忙碌", "state-evicting": "卸载中", "state-failed": "失败",
    members: "成员：", drain: "排空", resume: "恢复", drained: "已排空", failures: "次失败",
    "health-healthy": "健康", "health-ejected": "已剔除", "health-trying": "待重试",
    running: "运行", queued: "等待", of: "/", taken: "已用", loading: "加载中",
    adminNeeded: "加载、固定、运行中的请求和事件需要管理密钥（MM_GATEWAY_ADMIN_KEYS 之一）：请在“密钥”中填写。",
    adminRefused: "网关拒绝了管理密钥：请在“密钥”中填写其他密钥。",
    adminOff: "管理功能未开启：请以 MM_GATEWAY_ADMIN_KEYS=… 启动网关，并在“密钥”中填写该密钥。",
    throughput: "每秒输出词元", firstTokens: "首个词元用时（秒）", atWork: "请求数",
    lastMinutes: "最近五分钟", nothingYet: "暂无数据", runningRequests: "运行中的请求", recentRequests: "刚结束的请求",
    noneRunning: "没有运行中的请求。", noneRecent: "还没有结束的请求。", cancel: "取消", endpoint: "接口", key: "密钥", since: "开始", took: "用时",
    "request-arriving": "到达中", "request-waiting": "等待", "request-running": "运行", "request-finished": "结束", clientGone: "客户端已断开",
    events: "加载与卸载记录", noEvents: "还没有模型加载或卸载。",
    "event-loaded": "已加载", "event-evicted": "已卸载", "event-failed": "加载失败",
    "reason-asked": "按要求卸载", "reason-idle": "闲置过久", "reason-room": "腾出内存", "reason-failed": "引擎故障",
    "reason-closing": "网关关闭", roomFor: "给", fromHost: "来自主机内存",
    groupedBy: "分组", period: "日期（UTC）", "by-key": "密钥", "by-key,model": "密钥和模型", "by-model": "模型", "by-day": "日期",
    "days-1": "今天", "days-7": "最近 7 天", "days-30": "最近 30 天", always: "全部", day: "日期", noUsage: "还没有用量。", total: "合计",
    prompt_tokens: "输入词元", cached_tokens: "其中已缓存", output_tokens: "输出词元", reasoning_tokens: "其中思考", cost: "费用",
  },
};

const STORED = "mm-gateway.language";

let current = localStorage.getItem(STORED) ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export function language() {
  return current;
}

export function setLanguage(name) {
  current = name;
  localStorage.setItem(STORED, name);
}

export function t(key) {
  return WORDS[current]?.[key] ?? WORDS.en[key] ?? key;
}
