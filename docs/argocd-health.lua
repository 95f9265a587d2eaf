-- Health of a NixImage for Argo CD, key resource.customizations.health.firn.dev_NixImage of
-- ConfigMap argocd-cm. Runs on Lua 5.1.
--
-- Healthy means: the image of this very spec is in the registry. Without such a script Argo CD takes
-- every NixImage for healthy at once, and sync waves do not wait.

local spec = obj.spec or {}
local status = obj.status or {}
local generation = obj.metadata.generation

-- Whether something was observed of the spec as it is now. An operator that has not seen the new
-- spec still shows what it knew of the old one.
local function is_of_now(observed)
  return observed == nil or generation == nil or observed == generation
end

-- "reason: message" of the condition of that type if it has that status, else nil.
local function said(type, value)
  for _, condition in ipairs(status.conditions or {}) do
    if condition.type == type and condition.status == value
      and is_of_now(condition.observedGeneration) then
      return (condition.reason or "?") .. ": " .. (condition.message or "")
    end
  end
  return nil
end

if spec.suspend == true then
  return { status = "Suspended", message = "spec.suspend is true" }
end

local stalled = said("Stalled", "True")
if stalled then
  return { status = "Degraded", message = stalled }
end

local reconciling = said("Reconciling", "True")
if reconciling then
  return { status = "Progressing", message = reconciling }
end

-- -1 from birth on, until the spec was handled to its end for the first time.
if status.observedGeneration == nil or not is_of_now(status.observedGeneration) then
  return { status = "Progressing", message = "Waiting for the operator" }
end

local ready = said("Ready", "True")
if ready then
  return { status = "Healthy", message = ready }
end

local failed = said("Ready", "False")
if failed then
  return { status = "Degraded", message = failed }
end

return { status = "Progressing", message = said("Ready", "Unknown") or "Waiting for the operator" }
